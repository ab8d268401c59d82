"""The rows of a run: of epochs, of evaluations, of logged steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core._frozen import freeze_field

__all__ = ["Evaluation", "Row", "StepRow", "scalars"]


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
    def loss(self) -> float:
        """The loss of the epoch, under the name that it has in a logged step and in a table."""
        return self.epoch_loss

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


def scalars(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are numbers.

    >>> scalars({"accuracy": 0.5, "confusion": [[1.0, 0.0], [2.0, 1.0]]})
    {'accuracy': 0.5}
    """
    return {name: value for name, value in figures.items() if not isinstance(value, (list, dict))}
