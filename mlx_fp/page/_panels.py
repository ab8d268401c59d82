"""The curves of a run: one panel for each figure, with the lines of training and of validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..core._bytes import as_bytes, bytes_text
from ._axes import Axis, axis
from ._runs import Run
from ._thin import is_drawn
from ._words import as_number

__all__ = ["Line", "Panel", "best_point", "panels", "read_name", "steps_axis"]

_OF_ROWS = frozenset(
    [
        "epoch",
        "batches",
        "examples",
        "steps",
        "epoch_loss",
        "validation_batches",
        "seconds",
        "monitor_value",
        "improved",
        "stale",
        "checkpoint",
        "examples_per_second",
        "timed",
    ]
)
"""The entries of a row that are no figures of the model."""

_SPEEDS = {
    "rows_per_second": "rows per second",
    "tokens_per_second": "tokens per second",
    "peak_memory": "peak memory",
}
"""The panels of throughput and memory by the names of logged steps."""

_LAST = ("learning_rate", "grad_norm", "rows per second", "tokens per second", "peak memory")
"""The panels after the metrics, in their order."""


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one figure over the steps of a run."""

    name: str
    """For example "train", "validation" or "each step"."""
    kind: str
    """"step" for logged steps, "train" for the means of epochs, or "validation"."""
    steps: tuple[float, ...]
    values: tuple[float | None, ...]
    epochs: tuple[int | None, ...]
    """The epoch of each point."""
    number: int = 0
    """The number of the validation set of the line, in the order of the sets. It gives the colour."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure with its lines."""

    name: str
    lines: tuple[Line, ...]
    unit: str = ""
    zero: bool = False
    """Whether the vertical axis begins at 0."""

    @property
    def title(self) -> str:
        """The name with the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def panels(run: Run) -> list[Panel]:
    """Return the panels of a run: the loss, the metrics, then rate, norm, throughput and memory where they were logged.

    >>> rows = [{"epoch": 0, "steps": 5, "loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.4}]
    >>> from mlx_fp.page._runs import runs_of
    >>> [(p.name, [line.name for line in p.lines]) for p in panels(runs_of([{"rows": rows}])[0])]
    [('loss', ['train']), ('accuracy', ['train', 'validation'])]
    """
    lines: dict[str, list[Line]] = {"loss": []}
    for name, line in (*_step_lines(run), *_row_lines(run), *_evaluation_lines(run)):
        if name != "peak memory" or any(line.values):
            lines.setdefault(name, []).append(line)
    names = [name for name in lines if name not in _LAST] + [name for name in _LAST if name in lines]
    return [_in_units(Panel(name, tuple(lines[name]))) for name in names if lines[name]]


def steps_axis(found: Iterable[Panel]) -> Axis:
    """Return the horizontal axis that all panels have in common."""
    ends = [step for panel in found for line in panel.lines if line.steps for step in (line.steps[0], line.steps[-1])]
    return axis(ends, whole=True)


def read_name(name: str, sets: Iterable[str]) -> tuple[str, str]:
    """Return the panel and the line of a figure of validation, for some names of validation sets.

    >>> read_name("val_accuracy", [""]), read_name("val_hard_loss", ["easy", "hard"])
    (('accuracy', 'validation'), ('loss', 'validation hard'))
    """
    rest = name.removeprefix("val_")
    own = next((each for each in sets if each and rest.startswith(f"{each}_")), None)
    return (rest, "validation") if own is None else (rest[len(own) + 1 :], f"validation {own}")


def best_point(run: Run) -> tuple[str, str, float, float] | None:
    """Return the panel, the line, the step and the value of the best evaluation; None where there is none."""
    name, step, value = run.report.get("monitor_name"), as_number(run.report.get("best_step")), run.best
    if not isinstance(name, str) or step is None or not is_drawn(value) or value is None:
        return None
    panel, line = read_name(name, _sets(run)) if name.startswith("val_") else (name, "train")
    return panel, line, step, value


def _sets(run: Run) -> list[str]:
    return list((run.report.get("setup") or {}).get("validation") or ())


def _step_lines(run: Run) -> list[tuple[str, Line]]:
    """Return the lines of logged steps; where no step was logged, the loss of each step, if the report has it."""
    rows = run.listed("steps")
    if rows:
        names = dict.fromkeys(name for row in rows for name in row)
        renamed = {name: _SPEEDS.get(name, name) for name in names if name not in ("step", "epoch")}
        return [(renamed[name], line) for name, line in _panel_lines("each step", "step", "step", rows, renamed)]
    losses, of_epochs = run.report.get("losses") or (), run.listed("rows")
    if not of_epochs or len(losses) != of_epochs[-1].get("steps"):
        return []
    ends = [(0, 0), *((int(row["steps"]), row.get("epoch")) for row in of_epochs)]
    epochs = [epoch for (start, _), (end, epoch) in pairwise(ends) for _ in range(end - start)]
    numbers = tuple(as_number(loss) for loss in losses)
    return [("loss", Line("each step", "step", tuple(map(float, range(1, len(numbers) + 1))), numbers, tuple(epochs)))]


def _row_lines(run: Run) -> list[tuple[str, Line]]:
    """Return the lines of the epochs, and their throughput."""
    rows = run.listed("rows")
    names = dict.fromkeys(name for row in rows for name in row if name not in _OF_ROWS and not name.startswith("val_"))
    speed = _panel_lines("each epoch", "train", "steps", rows, ["examples_per_second"])
    return _panel_lines("train", "train", "steps", rows, names) + [("rows per second", line) for _, line in speed]


def _evaluation_lines(run: Run) -> list[tuple[str, Line]]:
    """Return the lines of evaluations; of a report without evaluations, those of the epochs."""
    rows, step = run.listed("evaluations"), "step"
    if not rows:
        rows, step = run.listed("rows"), "steps"
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("val_"))
    named = {name: read_name(name, _sets(run)) for name in names}
    placed = [(*named[name], line) for name, line in _panel_lines("", "validation", step, rows, named)]
    numbers = {title: number for number, title in enumerate(dict.fromkeys(title for _, title, _ in placed))}
    return [(panel, replace(line, name=title, number=numbers[title])) for panel, title, line in placed]


def _panel_lines(
    title: str, kind: str, place: str, rows: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> list[tuple[str, Line]]:
    """Return the line of each figure of some rows. Figures that are no numbers leave gaps."""
    placed = [row for row in rows if is_drawn(as_number(row.get(place)))]
    steps, epochs = tuple(float(row[place]) for row in placed), tuple(row.get("epoch") for row in placed)
    columns = [(name, tuple(as_number(row.get(name)) for row in placed)) for name in names]
    return [
        (name, Line(title, kind, steps, values, epochs)) for name, values in columns if any(values) or 0.0 in values
    ]


def _in_units(panel: Panel) -> Panel:
    """Return the panel of memory in a unit of bytes, and other panels as they are."""
    if panel.name != "peak memory":
        return panel
    largest = max((value for line in panel.lines for value in line.values if value is not None), default=0.0)
    unit = bytes_text(largest).split()[1]
    size = as_bytes(f"1 {unit}", "unit")
    lines = tuple(
        replace(line, values=tuple(None if value is None else value / size for value in line.values))
        for line in panel.lines
    )
    return Panel(panel.name, lines, unit, zero=True)
