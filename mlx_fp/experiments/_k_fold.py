"""Cross-validation: train an experiment once for each fold of its training data, and validate on that fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import fmean, pstdev
from typing import Any, Unpack, cast

from ..checkpointing._policy import Policy
from ..core._errors import is_count
from ..core._html import html_table
from ..core._text import table
from ..core._user_path import user_path
from ..data import Splits
from ..data._folds import folds
from ..loop._options import Options, documented
from ..loop._report import Report
from ._experiment import Experiment
from ._found import best_values
from ._run import run_on
from ._with_policy import with_policy

__all__ = ["KFold", "k_fold"]


@dataclass(frozen=True, slots=True, repr=False)
class KFold:
    """The reports of the folds; `str()` is a table of them. `k_fold` makes this record.

    Args:
        name: Name of the experiment.
        reports: The report of each fold, with its parameters.
    """

    name: str
    reports: tuple[Report, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The best value of the monitor of each fold; NaN where a run has none."""
        return best_values(self.reports)

    @property
    def mean(self) -> float:
        """The mean of `values`."""
        return fmean(self.values)

    @property
    def spread(self) -> float:
        """The standard deviation of `values`."""
        return pstdev(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        monitor = self.reports[0].monitor_name
        return {
            "name": self.name,
            "monitor": monitor,
            "values": list(self.values),
            "mean": self.mean,
            "spread": self.spread,
        }

    def __str__(self) -> str:
        return table(self._table(), left=0)

    def _repr_html_(self) -> str:
        """Return the table of the folds as HTML, for a notebook."""
        return html_table(self._table(), left=0, caption=repr(self))

    def _table(self) -> list[list[str]]:
        """Return the cells of the table of the folds, with their heads."""
        rows = [
            [str(i), f"{value:.4g}", "" if each.best_epoch is None else str(each.best_epoch), each.stop_reason or ""]
            for i, (each, value) in enumerate(zip(self.reports, self.values, strict=True), 1)
        ]
        heads = ["fold", f"best {self.reports[0].monitor_name}", "epoch", "stopped"]
        return [heads, *rows, ["mean", f"{self.mean:.4g}", "", ""], ["spread", f"{self.spread:.4g}", "", ""]]

    def __repr__(self) -> str:
        return f"KFold({self.name!r}, {len(self.reports)} folds)"


@documented
def k_fold(count: int, *, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Experiment], KFold]:
    """Train an experiment once for each fold of its training data, and validate each run on its fold.

    The rows of the source of the training data are drawn for the folds by the seed of the run, before all operations,
    so each row is in one fold. With `out` each run has a folder in that folder, `fold-1`, `fold-2` and so on; so have
    the checkpoints of the experiment. The validation data of the experiment are not used.

    Args:
        count: The number of folds, 2 or more.
        quiet: Whether to show no progress; False by default.

    Returns:
        A function from an experiment to a record with `reports`, `values`, `mean` and `spread` of the monitor.

    Raises:
        TypeError: An option is unknown.
        ValueError: `count` is not 2 or more, or the training data have no indices or too few rows.

    >>> from mlx_fp import data, nn, regression
    >>> from mlx_fp.experiments._experiment import experiment
    >>> x = mx.random.normal((64, 3), key=mx.random.key(0))
    >>> rows = (data.arrays(x=x, y=x.sum(axis=1)), data.shuffle(seed=1), data.batch(16))
    >>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), data=data.splits(train=rows))
    >>> found = k_fold(4, quiet=True)(plain)
    >>> found, found.reports[0].monitor_name, found.mean == sum(found.values) / 4
    (KFold('sums', 4 folds), 'val_loss', True)
    """
    if not is_count(count, least=2):
        raise ValueError(f"k_fold takes a number of folds, 2 or more; got {count!r}")

    def train(target: Experiment) -> KFold:
        if not isinstance(target, Experiment):
            raise TypeError(f"k_fold takes an experiment; got {type(target).__name__}")
        splits, seed, reports = target.splits, options.get("seed", target.seed), list[Report]()
        if not isinstance(seed, int):
            raise TypeError(f"the seed of k_fold is an int, because it cuts the data; got {type(seed).__name__}")
        for number, (rest, held) in enumerate(folds(splits.train, count, seed), 1):
            name = f"fold-{number}"
            if not quiet:
                print(f"fold {number}/{count}", flush=True)
            own = with_policy(target, partial(_policy_in, name))
            out = options.get("out")
            folder = {} if out is None else {"out": user_path(out) / name}
            fold = Splits(rest, held, splits.test)
            reports.append(run_on(own, fold, quiet, cast(Options, {**options, **folder})))
        return KFold(target.name, tuple(reports))

    return train


def _policy_in(name: str, policy: Policy) -> Policy:
    return policy.inside(name)
