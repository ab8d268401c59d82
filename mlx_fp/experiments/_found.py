"""The trials of a sweep, compared in one table, and the best values of several reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..core._errors import unknown
from ..core._frozen import freeze_field
from ..core._html import html_table
from ..core._text import table
from ..loop._report import Report

__all__ = ["Sweep", "Trial", "best_values", "is_better"]


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

    def table(self, *, sort: str | None = None) -> str:
        """Return the table of the trials as text.

        Args:
            sort: "best" puts the best trial first, and trials without a value last. A path sorts by this setting. None
                keeps the order of the runs.

        Returns:
            The table.

        Raises:
            KeyError: No trial has a setting with this path; the message has candidates.
        """
        return table(self._table(_sorted(self.trials, sort)), left=0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with one row per trial."""
        return {"name": self.name, "trials": [_table_row(trial) for trial in self.trials]}

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """Return the table of the trials as HTML, for a notebook."""
        return html_table(self._table(self.trials), left=0, caption=repr(self))

    def _table(self, trials: Sequence[Trial]) -> list[list[str]]:
        """Return the cells of the table of the trials, with their heads."""
        rows = [_table_row(trial) for trial in trials]
        with_report = next((row for row, trial in zip(rows, trials, strict=True) if trial.report is not None), {})
        heads = list(with_report or (rows[0] if rows else {}))
        marks = ["best" if self.best and trial.settings is self.best.settings else "" for trial in trials]
        cells = [[*(_cell_text(row.get(head)) for head in heads), mark] for row, mark in zip(rows, marks, strict=True)]
        return [[*heads, ""], *cells]

    def __repr__(self) -> str:
        return f"Sweep({self.name!r}, {len(self.trials)} trials)"


def best_values(reports: Iterable[Report]) -> tuple[float, ...]:
    """Return the best value of the monitor of each report; NaN where a run has none."""
    return tuple(float("nan") if each.best_value is None else each.best_value for each in reports)


def is_better(report: Report, best: Report | None) -> bool:
    """Tell whether a report has a better value of the monitor than the best report so far."""
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


def _sorted(trials: Sequence[Trial], sort: str | None) -> list[Trial]:
    """Return trials in the order of their value of the monitor, or of a setting."""
    if sort is None:
        return list(trials)
    if sort == "best":
        return sorted(trials, key=_order_of)
    paths = dict.fromkeys(path for trial in trials for path in trial.settings)
    if sort not in paths:
        raise KeyError(unknown("path to sort by", sort, ["best", *paths]))
    return sorted(trials, key=lambda trial: _setting_key(trial.settings.get(sort)))


def _order_of(trial: Trial) -> tuple[bool, float]:
    report = trial.report
    if report is None or report.best_value is None:
        return (True, 0.0)
    return (False, report.best_value if report.monitor_mode == "min" else -report.best_value)


def _setting_key(value: object) -> tuple[bool, float, str]:
    """Return the key of a setting: numbers first, then all other values by their text."""
    is_number = isinstance(value, (int, float)) and value == value
    return (not is_number, float(cast(float, value)) if is_number else 0.0, "" if is_number else repr(value))
