"""The report of a run: its rows, and its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolz import merge

from ..core._frozen import freeze_field
from ..core._html import html_table, sparkline
from ..core._text import table
from ..core._types import Params, State
from ._rows import Evaluation, Row, StepRow
from ._setup import Setup

__all__ = ["Report", "best_checkpoint", "params_of"]

_POINTS = 240
"""The number of points of the curve in a notebook, or a little more."""


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The result of a run: rows, losses of the steps, the last parameters and state, and the reason of the end.

    It prints as a table of the epochs, which count from 0.
    """

    rows: tuple[Row, ...]
    evaluations: tuple[Evaluation, ...]
    steps: tuple[StepRow, ...]
    """The logged steps of this process, see `log_every`."""
    losses: tuple[float, ...]
    losses_kept: bool
    monitor_name: str
    monitor_mode: str
    best_value: float | None
    best_epoch: int | None
    best_step: int | None
    epochs_target: int | None
    steps_target: int | None
    epochs_completed: int
    epochs_ran: int
    start_epoch: int
    stopped_early: bool
    stop_reason: str | None
    resume_from: str | None
    resumed_from_epoch: int | None
    checkpoints: tuple[str, ...]
    """The present files of this process, newest last."""
    policy: Mapping[str, object] | None
    """The options of `checkpoints`. `latest` and `bundle` are the paths of those files, or None."""
    setup: Setup
    """The settings of the run: its options, and whether it was resumed, and how exactly."""
    params: Params = field(repr=False)
    opt_state: State = field(repr=False)
    best_params: Params | None = field(default=None, repr=False)
    """The parameters of the best evaluation, with `keep_best=True`. With `averaged=True` they are averages."""
    model: Mapping[str, object] | None = None
    """The layers of the model as plain values, `nn.summary(model, params).to_dict()`; None where it has no summary."""

    def __post_init__(self) -> None:
        freeze_field(self, "policy", "model")

    @property
    def best_checkpoint(self) -> str | None:
        """The path of the checkpoint of the best evaluation; None where it has none. `load` reads it."""
        return best_checkpoint(self.evaluations, self.best_step)

    @property
    def exit_status(self) -> int:
        """The exit status for a script: 130 after Ctrl-C, 143 after SIGTERM, else 0."""
        return {"SIGINT": 130, "SIGTERM": 143}.get(self.stop_reason or "", 0)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, without arrays."""
        rows = {name: [row.to_dict() for row in getattr(self, name)] for name in ("rows", "evaluations", "steps")}
        listed = {"losses": list(self.losses), "checkpoints": list(self.checkpoints), "setup": self.setup.to_dict()}
        arrays = ("params", "opt_state", "best_params")
        return {name: getattr(self, name) for name in self.__slots__ if name not in arrays} | rows | listed

    def to_json(self, indent: int | None = 2) -> str:
        """Return JSON, without arrays. Numbers that are not finite are the strings nan, inf and -inf.

        Args:
            indent: Spaces of indentation. None: one line.
        """
        return json.dumps(_as_json(self.to_dict()), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        if not self.rows:
            return "no epochs"
        rows = table(self._table(), left=0)
        last = self.rows[-1].named().items()
        tables = [f"{name}\n{_table_text(value)}" for name, value in last if isinstance(value, (list, dict))]
        return "\n\n".join([rows, *tables])

    def _repr_html_(self) -> str:
        """Return the table of the epochs and a curve of the loss as HTML, for a notebook."""
        losses = self.losses or [row.loss for row in self.rows]
        curve = sparkline(losses[:: max(len(losses) // _POINTS, 1)], title=f"loss, {len(losses)} values")
        ended = "" if self.stop_reason is None else f"\nstopped: {self.stop_reason}"
        return f"<div>{html_table(self._table(), caption=repr(self) + ended)}{curve}</div>"

    def _table(self) -> list[list[str]]:
        """Return the cells of the table of the epochs, with their heads."""
        names = merge(row.figures() for row in self.rows)  # an epoch that was cut short has no figures of validation
        return [["epoch", *names, "seconds"], *(_cells(row, names) for row in self.rows)]

    def __repr__(self) -> str:
        return f"Report({self.epochs_ran} epochs, {self.rows[-1].steps if self.rows else 0} steps)"


def best_checkpoint(evaluations: Sequence[Evaluation], best_step: int | None) -> str | None:
    """Return the path of the newest checkpoint of the best evaluation, None where it has none."""
    named = [each.checkpoint for each in evaluations if each.step == best_step and each.improved and each.checkpoint]
    return named[-1] if named else None


def _cells(row: Row, names: Iterable[str]) -> list[str]:
    figures = row.figures()
    cells = (f"{figures[name]:.4f}" if name in figures else "" for name in names)
    return [f"{row.epoch} (cut)" if row.cut else str(row.epoch), *cells, f"{row.seconds:.2f}"]


def _table_text(value: dict[str, object] | list[Any]) -> str:
    """Return the text of a figure that is no single number: a table for a matrix, else one line for each part.

    >>> print(_table_text([[12.0, 0.5], [3.0, 1.0]]))
      12  0.5
       3    1
    """
    if isinstance(value, dict):
        return "\n".join(f"  {name}: {part}" for name, part in value.items())
    rows = value if value and isinstance(value[0], list) else [value]
    if any(isinstance(cell, list) for row in rows for cell in row) or len({len(row) for row in rows}) > 1:
        return f"  {value}"
    lines = table([[f"{cell:.6g}" for cell in row] for row in rows], left=0)
    return "\n".join(f"  {line}" for line in lines.split("\n"))


def _as_json(value: object) -> object:
    """Return plain values, with numbers that are not finite as strings."""
    if isinstance(value, dict):
        return {key: _as_json(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def params_of(params: Params | Report) -> Params:
    """Return parameters. Of a report, return its last parameters."""
    return params.params if isinstance(params, Report) else params
