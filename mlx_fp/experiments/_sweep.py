"""One experiment under several settings, in one table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Unpack

from ..checkpointing._policy import Policy
from ..core._frozen import FrozenDict, freeze_field
from ..core._text import table
from ..loop._options import Options, documented
from ..loop._plan import plan
from ..loop._report import Report
from ..loop._signals import SIGNALS
from ..loop._trainer import Trainer
from ._experiment import Experiment, override
from ._folders import Folders, identity
from ._run import run

__all__ = ["Sweep", "Trial", "sweep"]

_INTERRUPTS = {number.name for number in SIGNALS}


@dataclass(frozen=True, slots=True)
class Trial:
    """One variant of an experiment, and what came of it: a report, or the error that ended it."""

    settings: Mapping[str, Any]
    report: Report | None
    error: str = ""

    def __post_init__(self) -> None:
        freeze_field(self, "settings")


@dataclass(frozen=True, slots=True, repr=False)
class Sweep:
    """The trials of a sweep, without their arrays; `str()` is a table of them, the best marked."""

    name: str
    trials: tuple[Trial, ...]
    best: Trial | None
    """The trial with the best value by the monitor, with its parameters; None where there is no trial."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, a row per trial."""
        return {"name": self.name, "trials": [_figures(trial) for trial in self.trials]}

    def __str__(self) -> str:
        rows = [_figures(trial) for trial in self.trials]
        heads = list(rows[0]) if rows else []  # the first trial has a report
        marks = ["best" if self.best and trial.settings is self.best.settings else "" for trial in self.trials]
        cells = [[*(_cell(row.get(head)) for head in heads), mark] for row, mark in zip(rows, marks, strict=True)]
        return table([[*heads, ""], *cells], left=0)

    def __repr__(self) -> str:
        return f"Sweep({self.name!r}, {len(self.trials)} trials)"


@documented
def sweep(
    grid: Mapping[str, Sequence[Any]], *, quiet: bool = False, **options: Unpack[Options]
) -> Callable[[Experiment], Sweep]:
    """Run an experiment for each combination of the values that `grid` gives to paths, as `override` does.

    Every path and value is tried out, and so every name checked, before the first run. The checkpoints of a trial are
    in a folder of its own, `trial-1` and so on, with its settings in a file. A sweep of another grid finds the folder
    of a trial by its settings, and makes a new one where there is none. Ctrl-C and SIGTERM end the sweep after the
    current step, with the trials so far.

    Args:
        grid: Values by path, for example `{"optimizer.learning_rate": [0.1, 0.01]}`.
        quiet: Whether to show no progress.

    Returns:
        A function from an experiment to a `Sweep`.

    >>> from functools import partial
    >>> from mlx_fp import nn, optim
    >>> from mlx_fp.experiments._experiment import experiment
    >>> from mlx_fp.task._task import regression
    >>> x = mx.random.normal((64, 3), key=mx.random.key(0))
    >>> batches, optimizer = [(x, x.sum(axis=1))] * 9, partial(optim.sgd, 0.1)
    >>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), optimizer=optimizer, data=batches)
    >>> found = sweep({"optimizer.learning_rate": [0.001, 0.1]}, quiet=True)(plain)
    >>> found.best.settings
    {'optimizer.learning_rate': 0.1}
    """

    if not isinstance(grid, Mapping):
        kind = type(grid).__name__
        raise TypeError(f'sweep takes a dict of values by path, {{"optimizer.learning_rate": [0.1, 0.01]}}; got {kind}')

    def swept(target: Experiment) -> Sweep:
        given: Any = {"nonfinite": "stop", **options}  # one trial that is lost ends no sweep
        cases: list[FrozenDict[str, Any]] = [
            FrozenDict(zip(grid, values, strict=True)) for values in product(*grid.values())
        ]
        variants = [override(case)(target) for case in cases]
        for variant in variants:
            checked: Any = {"epochs": variant.epochs, **given}
            _ = _apart(variant, lambda policy: policy.inside("trial")).trainer, plan(variant.splits, (), checked)
        folders = Folders()
        trials: list[Trial] = []
        best: Trial | None = None
        for number, (case, variant) in enumerate(zip(cases, variants, strict=True), 1):
            if not quiet:
                print(f"trial {number}/{len(cases)}: {', '.join(f'{k}={v!r}' for k, v in case.items())}", flush=True)
            try:
                place = partial(folders.inside, number=number, known=identity(variant, case))
                report = run(quiet=quiet, **given)(_apart(variant, place))
            except KeyboardInterrupt:  # while the trial was set up
                if not trials:
                    raise
                break
            except Exception as error:
                if not trials:
                    raise
                trials.append(_failed(case, error, number))
                continue
            best = Trial(case, report) if best is None or _better(report, best.report) else best
            trials.append(Trial(case, replace(report, params={}, opt_state={})))
            if report.stop_reason in _INTERRUPTS:
                break
        return Sweep(target.name, tuple(trials), best)

    return swept


def _apart(variant: Experiment, place: Callable[[Policy], Policy]) -> Experiment:
    """Give the checkpoints of a trial another place."""

    def verb(trainer: Trainer) -> Trainer:
        return trainer if trainer.policy is None else replace(trainer, policy=place(trainer.policy))

    return replace(variant, verbs=(*variant.verbs, verb))


def _failed(case: Mapping[str, Any], error: Exception, number: int) -> Trial:
    """Keep what an error says, not the error: its traceback holds the parameters of the trial."""
    told = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    warnings.warn(f"trial {number} ended with {told}", RuntimeWarning, stacklevel=3)
    return Trial(case, None, told)


def _better(report: Report, than: Report | None) -> bool:
    if report.best_value is None:
        return False
    if than is None or than.best_value is None:
        return True
    return report.best_value < than.best_value if report.monitor_mode == "min" else report.best_value > than.best_value


def _figures(trial: Trial) -> dict[str, Any]:
    if (report := trial.report) is None:
        return {**trial.settings, "stopped": trial.error}
    own = {
        f"best {report.monitor_name}": report.best_value,
        "epoch": report.best_epoch,
        "ran": report.epochs_ran,
    }
    return {**trial.settings, **own, "seconds": sum(row.seconds for row in report.rows), "stopped": report.stop_reason}


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
