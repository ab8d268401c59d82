"""The rows of a run, of epochs, evaluations and logged steps, and its report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolz import merge

from ..core._frozen import freeze_field
from ..core._text import table
from ..core._types import Params, State

__all__ = ["Evaluation", "Report", "Row", "StepRow", "best_checkpoint", "scalars"]


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch. Metrics read as attributes too: `row.accuracy`, `row.val_accuracy`."""

    epoch: int
    batches: int
    examples: int
    steps: int
    """Steps of the run so far."""
    epoch_loss: float
    """The mean loss over all that counts, or as `reduce` says."""
    metrics: Mapping[str, Any]
    """Each a number, or lists of numbers for a metric that is no scalar."""
    val_loss: float | None
    val_metrics: Mapping[str, Any]
    validation_batches: int
    seconds: float
    monitor_value: float | None = None
    improved: bool = False
    """Whether the last evaluation of the epoch is the best so far, by the monitor."""
    stale: int = 0
    """Evaluations since the best one."""
    checkpoint: str | None = None
    """The file of the state after the epoch; None where there is none, or no longer."""
    timed: int | None = None
    """The examples that `seconds` timed, None for all: fewer where another process had begun the epoch."""

    def __post_init__(self) -> None:
        freeze_field(self, "metrics", "val_metrics")

    @property
    def examples_per_second(self) -> float:
        """Training examples per second, validation left out."""
        timed = self.examples if self.timed is None else self.timed
        return timed / self.seconds if self.seconds else float("inf")

    def __getattr__(self, name: str) -> Any:
        named = self.named()
        if name in named:
            return named[name]
        raise AttributeError(f"a row has no {name!r}; its metrics: {', '.join(named) or 'none'}")

    def named(self) -> dict[str, Any]:
        """Name every metric, those of validation with `val_` in front."""
        return {**self.metrics} | {f"val_{name}": value for name, value in self.val_metrics.items()}

    def figures(self) -> dict[str, float]:
        """Name the losses and metrics that are numbers, in the order in which they are shown."""
        held = {} if self.val_loss is None else {"val_loss": self.val_loss}
        return scalars({"loss": self.epoch_loss, **self.metrics, **held, **self.named()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, metrics by name among them."""
        plain = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("metrics", "val_metrics", "timed")
        }
        return plain | self.named() | {"examples_per_second": self.examples_per_second}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation, with the verdict of the monitor. Metrics read as attributes: `evaluation.val_accuracy`."""

    epoch: int
    step: int
    """Steps of the run so far."""
    val_loss: float | None
    """None without validation data, where training figures are judged, and with named sets."""
    val_metrics: Mapping[str, Any]
    batches: int
    monitor_value: float | None = None
    """The value that was judged, None where the monitor watches a figure that this evaluation does not have."""
    improved: bool = False
    stale: int = 0
    """Evaluations since the best one."""
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        freeze_field(self, "val_metrics")

    def __getattr__(self, name: str) -> Any:
        named = self.named()
        if name in named:
            return named[name]
        raise AttributeError(f"an evaluation has no {name!r}; its metrics: {', '.join(named) or 'none'}")

    def named(self) -> dict[str, Any]:
        """Name every metric, with `val_` in front."""
        return {f"val_{name}": value for name, value in self.val_metrics.items()}

    def figures(self) -> dict[str, float]:
        """Name the loss and the metrics that are numbers, in the order in which they are shown."""
        return scalars(({} if self.val_loss is None else {"val_loss": self.val_loss}) | self.named())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, metrics by name among them."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "val_metrics"} | self.named()


@dataclass(frozen=True, slots=True)
class StepRow:
    """One logged step. Figures read as attributes too."""

    step: int
    """Steps of the run so far."""
    epoch: int
    loss: float
    figures: Mapping[str, float]
    """The further figures that the loss returned."""
    learning_rate: float | None = None
    """The rate of the step; of several, that of the first group. None for an optimiser without one."""
    grad_norm: float | None = None
    """The norm of the gradients before clipping."""
    rows_per_second: float | None = None
    """Training rows per second since the logged step before, in the same epoch."""
    tokens_per_second: float | None = None
    """Tokens that count per second, where the task counts tokens."""
    peak_memory: int = 0
    """The most bytes that MLX has held so far in this process."""

    def __post_init__(self) -> None:
        freeze_field(self, "figures")

    def __getattr__(self, name: str) -> float:
        if name != "figures" and name in self.figures:
            return self.figures[name]
        raise AttributeError(f"a logged step has no {name!r}; its figures: {', '.join(self.figures) or 'none'}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, figures by name among them."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "figures"}
        return {**self.figures, **plain}


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The outcome of a run: rows, the loss of every step, the last parameters and state, and why it ended."""

    rows: tuple[Row, ...]
    evaluations: tuple[Evaluation, ...]
    steps: tuple[StepRow, ...]
    """The steps that this process logged, see `log_every`."""
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
    """The files that this process wrote and has not deleted since, the newest last."""
    policy: Mapping[str, Any] | None
    params: Params = field(repr=False)
    opt_state: State = field(repr=False)
    best_params: Params | None = field(default=None, repr=False)
    """The parameters of the best evaluation, with `keep_best=True`; with `averaged=True` their averages."""

    def __post_init__(self) -> None:
        freeze_field(self, "policy")

    @property
    def best_checkpoint(self) -> str | None:
        """The checkpoint of the best evaluation, None where it has none; `load` reads it."""
        return best_checkpoint(self.evaluations, self.best_step)

    @property
    def exit_status(self) -> int:
        """What a script should exit with: 130 after Ctrl-C, 143 after SIGTERM, else 0."""
        return {"SIGINT": 130, "SIGTERM": 143}.get(self.stop_reason or "", 0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the arrays."""
        rows = {name: [row.to_dict() for row in getattr(self, name)] for name in ("rows", "evaluations", "steps")}
        listed = {"losses": list(self.losses), "checkpoints": list(self.checkpoints)}
        arrays = ("params", "opt_state", "best_params")
        return {name: getattr(self, name) for name in self.__slots__ if name not in arrays} | rows | listed

    def to_json(self, indent: int | None = 2) -> str:
        """Return JSON, without the arrays; numbers that are not finite as the strings nan, inf and -inf."""
        return json.dumps(_finite(self.to_dict()), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        if not self.rows:
            return "no epochs"
        names = merge(row.figures() for row in self.rows)  # an epoch that was cut has no figures of validation
        rows = table([["epoch", *names, "seconds"], *(_cells(row, names) for row in self.rows)], left=0)
        last = self.rows[-1].named().items()
        return "\n\n".join([rows, *(f"{name}\n{_told(one)}" for name, one in last if isinstance(one, (list, dict)))])

    def __repr__(self) -> str:
        return f"Report({self.epochs_ran} epochs, {self.rows[-1].steps if self.rows else 0} steps)"


def best_checkpoint(evaluations: Sequence[Evaluation], best_step: int | None) -> str | None:
    """Return the path of the newest checkpoint of the best evaluation, None where it has none."""
    named = [each.checkpoint for each in evaluations if each.step == best_step and each.improved and each.checkpoint]
    return named[-1] if named else None


def _cells(row: Row, names: Iterable[str]) -> list[str]:
    figures = row.figures()
    told = (f"{figures[name]:.4f}" if name in figures else "" for name in names)
    return [str(row.epoch), *told, f"{row.seconds:.2f}"]


def scalars(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are numbers.

    >>> scalars({"accuracy": 0.5, "confusion": [[1.0, 0.0], [2.0, 1.0]]})
    {'accuracy': 0.5}
    """
    return {name: value for name, value in figures.items() if not isinstance(value, (list, dict))}


def _told(value: Any) -> str:
    """Lay out a figure that is no single number: a matrix as a table, anything else by its lines.

    >>> print(_told([[12.0, 0.5], [3.0, 1.0]]))
      12  0.5
       3    1
    """
    if isinstance(value, dict):
        return "\n".join(f"  {name}: {one}" for name, one in value.items())
    rows = value if value and isinstance(value[0], list) else [value]
    if any(isinstance(cell, list) for row in rows for cell in row) or len({len(row) for row in rows}) > 1:
        return f"  {value}"
    lines = table([[f"{cell:.6g}" for cell in row] for row in rows], left=0)
    return "\n".join(f"  {line}" for line in lines.split("\n"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value
