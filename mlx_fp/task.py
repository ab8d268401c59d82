"""What a model is trained for: a loss, metrics, and what to watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import call
from .door import mx
from .metric import Metric, accuracy, checked
from .nn import losses
from .types import Array, Forward, Loss

__all__ = ["Task", "as_task", "classification"]


@dataclass(frozen=True, slots=True)
class Task:
    """A loss and metrics over batches of `x` and `y`, and the name and direction of the number to watch."""

    name: str
    loss: Loss
    metrics: tuple[Metric, ...] = ()
    monitor: str = "val_loss"
    mode: str = "min"

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(m.name for m in self.metrics)})"


def classification(
    *,
    loss: Callable[..., Array] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str = "val_accuracy",
    mode: str = "max",
) -> Task:
    """Tell classes apart: logits `(n, …, classes)` against labels `y`, int `(n, …)`; cross entropy and accuracy.

    Batches are pairs `(x, y)`, or dicts with `x` and `y`. `loss(forward, x, y)` and `metrics` replace the defaults.
    Labels must be from 0 to classes - 1: MLX reads and writes out of bounds for others.

    >>> classification()
    classification(accuracy)
    """
    folds = (accuracy(),) if metrics is None else checked(metrics)
    return Task("classification", loss or _cross_entropy, folds, monitor, mode)


def as_task(task: Any) -> Task:
    """Take a Task, or a loss alone as a task without metrics.

    >>> as_task(lambda model, x: model(x).mean()).monitor
    'val_loss'
    """
    if isinstance(task, Task):
        return task
    if callable(task):
        return Task(call.name_of(task), task)
    raise TypeError(f"a task is a Task, such as classification(), or a loss function; got {type(task).__name__}")


def _cross_entropy(forward: Forward, x: Array, y: Array) -> Array:
    logits = forward(x)
    if y.ndim < logits.ndim and not mx.issubdtype(y.dtype, mx.integer):
        raise TypeError(f"classification needs integer labels; y is {y.dtype} {y.shape}: y.astype(mx.int32)")
    return losses.cross_entropy(logits, y, reduction="mean")
