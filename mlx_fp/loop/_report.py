"""What a run did: a row per epoch, and where it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolz import merge

from ..core._frozen import freeze_field
from ..core._text import table
from ..core._types import Params, State

__all__ = ["Report", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch. Metrics read as attributes too: `row.accuracy`, `row.val_accuracy`."""

    epoch: int
    batches: int
    examples: int
    steps: int
    """Steps of the run so far."""
    epoch_loss: float
    """The mean loss, weighted by examples."""
    metrics: Mapping[str, float]
    val_loss: float | None
    val_metrics: Mapping[str, float]
    validation_batches: int
    seconds: float
    monitor_value: float | None = None
    improved: bool = False
    """Whether this epoch is the best so far, by the monitor."""
    stale_epochs: int = 0
    """Epochs since the best one."""
    checkpoint: str | None = None
    timed: int | None = None
    """The examples that `seconds` timed, None for all: fewer where another process had begun the epoch."""

    def __post_init__(self) -> None:
        freeze_field(self, "metrics", "val_metrics")

    @property
    def examples_per_second(self) -> float:
        """Training examples per second, validation left out."""
        timed = self.examples if self.timed is None else self.timed
        return timed / self.seconds if self.seconds else float("inf")

    def __getattr__(self, name: str) -> float:
        named = self.named()
        if name in named:
            return named[name]
        raise AttributeError(f"a row has no {name!r}; its metrics: {', '.join(named) or 'none'}")

    def named(self) -> dict[str, float]:
        """Name every metric, those of validation with `val_` in front."""
        return {**self.metrics} | {f"val_{name}": value for name, value in self.val_metrics.items()}

    def figures(self) -> dict[str, float]:
        """Name the losses and metrics in the order in which they are shown."""
        held = {} if self.val_loss is None else {"val_loss": self.val_loss}
        return {"loss": self.epoch_loss, **self.metrics, **held, **self.named()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, metrics by name among them."""
        plain = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("metrics", "val_metrics", "timed")
        }
        return plain | self.named() | {"examples_per_second": self.examples_per_second}


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The outcome of a run: rows, the loss of every step, the last parameters and state, and why it ended."""

    rows: tuple[Row, ...]
    losses: tuple[float, ...]
    losses_kept: bool
    monitor_name: str
    monitor_mode: str
    best_value: float | None
    best_epoch: int | None
    epochs_target: int
    epochs_completed: int
    epochs_ran: int
    start_epoch: int
    stopped_early: bool
    stop_reason: str | None
    resume_from: str | None
    resumed_from_epoch: int | None
    checkpoints: tuple[str, ...]
    policy: Mapping[str, Any] | None
    params: Params = field(repr=False)
    opt_state: State = field(repr=False)

    def __post_init__(self) -> None:
        freeze_field(self, "policy")

    @property
    def best_checkpoint(self) -> str | None:
        """The checkpoint of the best epoch, None where it has none; `load` reads it."""
        return next((row.checkpoint for row in self.rows if row.epoch == self.best_epoch), None)

    @property
    def exit_status(self) -> int:
        """What a script should exit with: 130 after Ctrl-C, 143 after SIGTERM, else 0."""
        return {"SIGINT": 130, "SIGTERM": 143}.get(self.stop_reason or "", 0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the arrays."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("rows", "params", "opt_state")}
        listed = {"losses": list(self.losses), "checkpoints": list(self.checkpoints)}
        return {"rows": [row.to_dict() for row in self.rows], **plain, **listed}

    def to_json(self, indent: int | None = 2) -> str:
        """Return JSON, without the arrays; numbers that are not finite as the strings nan, inf and -inf."""
        return json.dumps(_finite(self.to_dict()), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        if not self.rows:
            return "no epochs"
        names = merge(row.figures() for row in self.rows)  # an epoch that was cut has no figures of validation
        return table([["epoch", *names, "seconds"], *(_cells(row, names) for row in self.rows)], left=0)

    def __repr__(self) -> str:
        return f"Report({self.epochs_ran} epochs, {self.rows[-1].steps if self.rows else 0} steps)"


def _cells(row: Row, names: Iterable[str]) -> list[str]:
    figures = row.figures()
    told = (f"{figures[name]:.4f}" if name in figures else "" for name in names)
    return [str(row.epoch), *told, f"{row.seconds:.2f}"]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value
