"""Train an experiment with several seeds together, and predict with the mean of the models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, Unpack, cast

from ..core._errors import is_count
from ..core._frozen import FrozenDict
from ..core._types import Tree
from ..core._user_path import user_path
from ..loop._options import Options, documented
from ..loop._report import Report
from ..step._member_record import Predictor
from ..step._member_step import stacked
from ._experiment import Experiment, override
from ._found import best_values
from ._together import Variant, check_together, train_together
from ._with_policy import with_policy

__all__ = ["Ensemble", "ensemble"]


@dataclass(frozen=True, slots=True, repr=False)
class Ensemble:
    """The reports of the members of an ensemble, and their prediction. `ensemble` makes this record.

    Args:
        name: Name of the experiment.
        reports: The report of each member, with its parameters.
        predictor: `predictor(*xs, **kw) -> (mean, spread)`, see `predict`.
    """

    name: str
    reports: tuple[Report, ...]
    predictor: Predictor

    def predict(self, *xs: Tree, **kw: Tree) -> tuple[Tree, Tree]:
        """Predict with all members.

        Args:
            xs: The inputs of the model, arrays.
            kw: Inputs by name.

        Returns:
            `(mean, spread)`: the mean of the outputs of the members, and their standard deviation.
        """
        return self.predictor(*xs, **kw)

    @property
    def values(self) -> tuple[float, ...]:
        """The best value of the monitor of each member; NaN where a run has none."""
        return best_values(self.reports)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        figures = {"values": list(self.values), "mean": fmean(self.values), "spread": pstdev(self.values)}
        return {"name": self.name, "monitor": self.reports[0].monitor_name, **figures}

    def __repr__(self) -> str:
        return f"Ensemble({self.name!r}, {len(self.reports)} members)"


@documented
def ensemble(count: int, *, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Experiment], Ensemble]:
    """Train an experiment with several seeds, as members of one compiled step.

    Each member has the seed of the run plus its index, and the report of a run alone. With `out` each has a folder in
    that folder, `member-1` and so on.

    Args:
        count: The number of members.
        quiet: Whether to show no progress; False by default.

    Returns:
        A function from an experiment to a record with `reports` and `predict(x) -> (mean, spread)`.

    Raises:
        TypeError: An option is unknown.
        ValueError: `count` is not 1 or more, or MLX cannot compute the model for several members; the message names the
            layer.

    >>> from mlx_fp import nn, regression
    >>> from mlx_fp.experiments._experiment import experiment
    >>> x = mx.random.normal((64, 3), key=mx.random.key(0))
    >>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), data=[(x, x.sum(axis=1))] * 9)
    >>> found = ensemble(3, quiet=True)(plain)
    >>> mean, spread = found.predict(x)
    >>> found, mean.shape, spread.shape
    (Ensemble('sums', 3 members), (64, 1), (64, 1))
    """
    if not is_count(count, least=1):
        raise ValueError(f"ensemble takes a number of members, 1 or more; got {count!r}")

    def train(target: Experiment) -> Ensemble:
        if not isinstance(target, Experiment):
            raise TypeError(f"ensemble takes an experiment; got {type(target).__name__}")
        seed = options.get("seed", target.seed)
        if not isinstance(seed, int):
            raise TypeError(
                f"the seed of ensemble is an int, because each member has its own; got {type(seed).__name__}"
            )
        check_together((), options)
        if not quiet:
            print(f"{count} members train together", flush=True)
        many, outcomes = train_together([_variant(target, options, seed, i) for i in range(count)])
        reports = []
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            reports.append(outcome)
        return Ensemble(target.name, tuple(reports), many.predict(stacked([each.params for each in reports])))

    return train


def _variant(target: Experiment, options: Options, seed: int, index: int) -> Variant:
    """Return the variant of a member, with its seed and its folder."""
    case: FrozenDict[str, object] = FrozenDict({"seed": seed + index})
    name, out = f"member-{index + 1}", options.get("out")
    own = {**options, **case} | ({} if out is None else {"out": user_path(out) / name})
    return Variant(case, with_policy(override(case)(target), lambda policy: policy.inside(name)), cast(Options, own))
