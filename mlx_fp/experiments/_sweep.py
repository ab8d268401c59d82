"""Train one experiment under several settings, and compare the reports in one table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Unpack, cast

from ..across._errors import is_lost
from ..across._world import ALONE
from ..checkpointing._policy import Policy
from ..core._frozen import FrozenDict, freeze_field
from ..core._html import html_table
from ..core._text import table
from ..core._user_path import user_path
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
"""The stop reasons of a run that Ctrl-C or SIGTERM has ended."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One variant of an experiment with its result.

    Args:
        settings: The changed settings of this variant, by path.
        report: The report of its run; None where an error ended the run.
        error: The message and the notes of this error, empty by default.
    """

    settings: Mapping[str, object]
    report: Report | None
    error: str = ""

    def __post_init__(self) -> None:
        freeze_field(self, "settings")


@dataclass(frozen=True, slots=True, repr=False)
class Sweep:
    """The trials of a sweep, without their arrays; `str()` is a table of the trials in which the best is marked.

    Args:
        name: Name of the experiment.
        trials: The trials, in the order of the runs.
        best: The trial with the best value of the monitor, with its parameters; None where there is no trial.
    """

    name: str
    trials: tuple[Trial, ...]
    best: Trial | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with one row per trial."""
        return {"name": self.name, "trials": [_table_row(trial) for trial in self.trials]}

    def __str__(self) -> str:
        return table(self._table(), left=0)

    def _repr_html_(self) -> str:
        """Return the table of the trials as HTML, for a notebook."""
        return html_table(self._table(), left=0, caption=repr(self))

    def _table(self) -> list[list[str]]:
        """Return the cells of the table of the trials, with their heads."""
        rows = [_table_row(trial) for trial in self.trials]
        heads = list(rows[0]) if rows else []  # the first trial always has a report
        marks = ["best" if self.best and trial.settings is self.best.settings else "" for trial in self.trials]
        cells = [[*(_cell_text(row.get(head)) for head in heads), mark] for row, mark in zip(rows, marks, strict=True)]
        return [[*heads, ""], *cells]

    def __repr__(self) -> str:
        return f"Sweep({self.name!r}, {len(self.trials)} trials)"


@documented
def sweep(
    grid: Mapping[str, Sequence[object]], *, quiet: bool = False, **options: Unpack[Options]
) -> Callable[[Experiment], Sweep]:
    """Run an experiment for each combination of settings.

    Before the first run, every variant is built, so an unknown path or an invalid value is an error at once. Each trial
    has a folder for its files, `trial-1`, `trial-2` and so on, with its settings in a file. With `out` the folders are
    in that folder. A sweep of another grid finds the folder of a trial by these settings, and makes a new folder where
    there is none. Ctrl-C and SIGTERM end the sweep after the current step, with the trials so far. A trial whose loss
    is not finite stops and does not end the sweep.

    Args:
        grid: Values by path, for example `{"optimizer.learning_rate": [0.1, 0.01]}`; see `override` for paths.
        quiet: Whether to show no progress; False by default.

    Returns:
        A function from an experiment to a `Sweep`.

    Raises:
        TypeError: `grid` is not a dict, or an option is unknown.
        KeyError: The experiment has no setting with a path of `grid`; the message has candidates.

    >>> from functools import partial
    >>> from mlx_fp import nn, optim
    >>> from mlx_fp.experiments._experiment import experiment
    >>> from mlx_fp.task._task import regression
    >>> x = mx.random.normal((64, 3), key=mx.random.key(0))
    >>> batches, optimizer = [(x, x.sum(axis=1))] * 9, partial(optim.sgd, 0.1)
    >>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), optimizer=optimizer, data=batches)
    >>> result = sweep({"optimizer.learning_rate": [0.001, 0.1]}, quiet=True)(plain)
    >>> result.best.settings
    {'optimizer.learning_rate': 0.1}
    """
    if not isinstance(grid, Mapping):
        kind = type(grid).__name__
        raise TypeError(f'sweep takes a dict of values by path, {{"optimizer.learning_rate": [0.1, 0.01]}}; got {kind}')

    def run_trials(target: Experiment) -> Sweep:
        run_options = cast(Options, {"nonfinite": "stop", **options})
        cases: list[FrozenDict[str, object]] = [
            FrozenDict(zip(grid, values, strict=True)) for values in product(*grid.values())
        ]
        variants = [override(case)(target) for case in cases]
        for variant in variants:
            _ = _with_policy(variant, lambda policy: policy.inside("trial")).trainer
            plan(variant.splits, (), {"epochs": variant.epochs, **run_options})
        world = run_options.get("across", ALONE)
        folders, silent = Folders(world), quiet or world.rank > 0
        trials: list[Trial] = []
        best: Trial | None = None
        for number, (case, variant) in enumerate(zip(cases, variants, strict=True), 1):
            if not silent:
                print(f"trial {number}/{len(cases)}: {', '.join(f'{k}={v!r}' for k, v in case.items())}", flush=True)
            try:
                name = partial(folders.name, number=number, trial_identity=identity(variant, case))
                report = _run_trial(variant, name, quiet, run_options)
            except KeyboardInterrupt:  # raised outside the run, for example while the trial was built
                if not trials:
                    raise
                break
            except Exception as error:
                if not trials or is_lost(error):
                    raise
                trials.append(_failed_trial(case, error, number))
                continue
            best = Trial(case, report) if best is None or _is_better(report, best.report) else best
            trials.append(Trial(case, replace(report, params={}, opt_state={})))
            if report.stop_reason in _INTERRUPTS:
                break
        return Sweep(target.name, tuple(trials), best)

    return run_trials


def _run_trial(variant: Experiment, name: Callable[[Path], str], quiet: bool, options: Options) -> Report:
    """Run a trial with its files in a folder of its own. `name(root)` returns the name of that folder in `root`."""
    out = options.get("out")
    if out is not None:
        folder = user_path(out)
        return run(quiet=quiet, **cast(Options, {**options, "out": folder / name(folder)}))(variant)

    def in_folder(policy: Policy) -> Policy:
        return policy.inside(name(policy.inside("trial").folder.parent))

    return run(quiet=quiet, **options)(_with_policy(variant, in_folder))


def _with_policy(variant: Experiment, change: Callable[[Policy], Policy]) -> Experiment:
    """Return the variant with a changed policy for its checkpoints."""

    def verb(trainer: Trainer) -> Trainer:
        return trainer if trainer.policy is None else replace(trainer, policy=change(trainer.policy))

    return replace(variant, verbs=(*variant.verbs, verb))


def _failed_trial(case: Mapping[str, object], error: Exception, number: int) -> Trial:
    """Return a trial with the text of an error; the error itself would keep the trial's parameters in its traceback."""
    message = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    warnings.warn(f"trial {number} ended with {message}", RuntimeWarning, stacklevel=3)
    return Trial(case, None, message)


def _is_better(report: Report, best: Report | None) -> bool:
    if report.best_value is None:
        return False
    if best is None or best.best_value is None:
        return True
    return report.best_value < best.best_value if report.monitor_mode == "min" else report.best_value > best.best_value


def _table_row(trial: Trial) -> dict[str, object]:
    """Return the settings of a trial and the figures of its report by the head of their column."""
    if (report := trial.report) is None:
        return {**trial.settings, "stopped": trial.error}
    figures: dict[str, object] = {
        f"best {report.monitor_name}": report.best_value,
        "epoch": report.best_epoch,
        "ran": report.epochs_ran,
        "seconds": sum(row.seconds for row in report.rows),
        "stopped": report.stop_reason,
    }
    return {**trial.settings, **figures}


def _cell_text(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
