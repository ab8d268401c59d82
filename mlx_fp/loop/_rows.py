"""The rows of a run: of epochs, of evaluations, and of logged steps. Epochs count from 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core._frozen import freeze_field

__all__ = ["ADDED", "Evaluation", "Row", "StepRow", "scalars"]

ADDED = frozenset({"cut"})
"""The fields of rows that checkpoints of older versions lack. Their defaults stand for them."""

Plain = dict[str, object]
"""Plain values by name, as JSON has them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch. Figures read as attributes too, for example `row.loss`, `row.accuracy`, `row.val_accuracy`."""

    epoch: int
    """The number of the epoch; the first epoch has 0."""
    batches: int
    examples: int
    steps: int
    """Steps of the run so far."""
    epoch_loss: float
    """The loss of the epoch: the mean over all that counts, or as `reduce` says. `loss` is the same figure."""
    metrics: Mapping[str, Any]
    """The values of the metrics by name: numbers, or lists of numbers for a metric that is no scalar."""
    val_loss: float | None
    val_metrics: Mapping[str, Any]
    validation_batches: int
    seconds: float
    """Seconds of training, without validation."""
    monitor_value: float | None = None
    improved: bool = False
    """Whether the last evaluation of the epoch is the best so far, by the monitor."""
    stale: int = 0
    """Evaluations since the best one."""
    checkpoint: str | None = None
    """The file of the state after the epoch; None where there is none, or no longer."""
    timed: int | None = None
    """The number of examples that `seconds` timed: fewer than all where another process began the epoch. None: all."""
    cut: bool = False
    """Whether the epoch was cut short: the run ended before all of it was read, or before its validation."""

    def __post_init__(self) -> None:
        freeze_field(self, "metrics", "val_metrics")

    @property
    def loss(self) -> float:
        """The loss of the epoch. Tables, logged steps and monitors use this name too."""
        return self.epoch_loss

    @property
    def examples_per_second(self) -> float:
        """Training examples per second, without validation."""
        timed = self.examples if self.timed is None else self.timed
        return timed / self.seconds if self.seconds else float("inf")

    def __getattr__(self, name: str) -> Any:
        metrics = self.named()
        if name in metrics:
            return metrics[name]
        raise AttributeError(f"a row has no {name!r}; its metrics: {', '.join(metrics) or 'none'}")

    def named(self) -> dict[str, Any]:
        """Return every metric by name, those of validation with `val_` in front."""
        return {**self.metrics} | {f"val_{name}": value for name, value in self.val_metrics.items()}

    def figures(self) -> dict[str, float]:
        """Return the losses and the metrics that are numbers by name, in the order in which they are shown."""
        validation = {} if self.val_loss is None else {"val_loss": self.val_loss}
        return scalars({"loss": self.epoch_loss, **self.metrics, **validation, **self.named()})

    def to_dict(self) -> Plain:
        """Return plain values, with the metrics by name among them."""
        plain = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("metrics", "val_metrics", "timed")
        }
        return plain | self.named() | {"loss": self.epoch_loss, "examples_per_second": self.examples_per_second}


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
    """The value that was judged; None where this evaluation does not have the watched figure."""
    improved: bool = False
    stale: int = 0
    """Evaluations since the best one."""
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        freeze_field(self, "val_metrics")

    def __getattr__(self, name: str) -> Any:
        metrics = self.named()
        if name in metrics:
            return metrics[name]
        raise AttributeError(f"an evaluation has no {name!r}; its metrics: {', '.join(metrics) or 'none'}")

    def named(self) -> dict[str, Any]:
        """Return every metric by name, with `val_` in front."""
        return {f"val_{name}": value for name, value in self.val_metrics.items()}

    def figures(self) -> dict[str, float]:
        """Return the loss and the metrics that are numbers by name, in the order in which they are shown."""
        return scalars(({} if self.val_loss is None else {"val_loss": self.val_loss}) | self.named())

    def to_dict(self) -> Plain:
        """Return plain values, with the metrics by name among them."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "val_metrics"} | self.named()


@dataclass(frozen=True, slots=True)
class StepRow:
    """One logged step. Its figures read as attributes too, for example `row.perplexity`."""

    step: int
    """Steps of the run so far."""
    epoch: int
    loss: float
    figures: Mapping[str, float]
    """The further figures that the loss returned."""
    learning_rate: float | None = None
    """The learning rate of the step; of several, the rate of the first group. None for an optimiser without one."""
    grad_norm: float | None = None
    """The norm of the gradients before clipping."""
    rows_per_second: float | None = None
    """Training rows per second since the previous logged step of the same epoch."""
    tokens_per_second: float | None = None
    """Tokens that count per second, where the task counts tokens."""
    peak_memory: int = 0
    """The peak of the memory that MLX has used so far in this process, in bytes."""

    def __post_init__(self) -> None:
        freeze_field(self, "figures")

    def __getattr__(self, name: str) -> float:
        if name != "figures" and name in self.figures:
            return self.figures[name]
        raise AttributeError(f"a logged step has no {name!r}; its figures: {', '.join(self.figures) or 'none'}")

    def to_dict(self) -> Plain:
        """Return plain values, with the figures by name among them."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "figures"}
        return {**self.figures, **plain}


def scalars(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are numbers.

    >>> scalars({"accuracy": 0.5, "confusion": [[1.0, 0.0], [2.0, 1.0]]})
    {'accuracy': 0.5}
    """
    return {name: value for name, value in figures.items() if not isinstance(value, (list, dict))}
