"""What a model is trained for: a loss, metrics, what to watch, and the shape of batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core._frozen import freeze_field
from ..core._mlx import mx
from ..core._signature import name_of
from ..core._types import Array, Batch, Forward, Loss
from ..data._collate import bound
from ..nn import losses
from ._folds import Metric, checked
from ._labels import as_targets, kept, within
from .metrics import accuracy, mae, mse, perplexity, r2, token_accuracy

__all__ = ["Task", "as_task", "classification", "language_modeling", "regression"]


@dataclass(frozen=True, slots=True)
class Task:
    """A loss and metrics over batches, the name and direction of the number to watch, and how batches are shaped.

    `mode` is that of `Monitor`: without, the direction is that of the metric of the name. `collate` is a spec for
    `data.collate`, of what comes out of a dataset; None takes batches as they come.
    """

    name: str
    loss: Loss
    metrics: tuple[Metric, ...] = ()
    monitor: str = "val_loss"
    mode: str | None = None
    collate: Any = None

    def __post_init__(self) -> None:
        freeze_field(self, "collate")

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(m.name for m in self.metrics)})"


def classification(
    *,
    loss: Callable[..., Array] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: Any = None,
) -> Task:
    """Tell classes apart: logits `(n, …, classes)` against labels `y`, int `(n, …)`; cross entropy and accuracy.

    Batches are pairs `(x, y)`, or dicts with `x` and `y`, or with what stands for them, see `data.bind`.
    `loss(forward, x, y)` and the other options replace the defaults. A label that is not from 0 to classes - 1 makes
    the loss NaN, which ends a run; MLX itself would read and write out of bounds.

    >>> classification()
    classification(accuracy)
    """
    folds = (accuracy(),) if metrics is None else checked(metrics)
    watched = monitor or _usual("val_accuracy", folds)
    return Task("classification", loss or _cross_entropy, folds, watched, mode, collate or _xy)


def regression(
    *,
    loss: Callable[..., Array] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: Any = None,
) -> Task:
    """Predict numbers `(n, …)`, targets `y` of the same shape, or `(n,)` for predictions `(n, 1)`; mean squared error.

    Metrics are MSE, MAE and R², of one output unless `metrics` says otherwise. Batches and options as in
    `classification`.

    >>> regression()
    regression(mse, mae, r2)
    """
    folds = (mse(), mae(), r2()) if metrics is None else checked(metrics)
    return Task("regression", loss or _squared_error, folds, monitor or "val_loss", mode, collate or _xy)


def language_modeling(
    *,
    ignore: int | None = None,
    loss: Callable[..., Array] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: Any = None,
) -> Task:
    """Predict the next token: logits `(n, tokens, vocabulary)` against `y`, int `(n, tokens)`.

    A batch that is one array of tokens, `(n, tokens + 1)`, is its own target, one place on. Padding is left out of loss
    and metrics where `y` is `ignore`, or where a third column `mask` is 0. The loss is the mean over the tokens of a
    batch. Other batches and options as in `classification`.

    >>> language_modeling()
    language_modeling(perplexity, token_accuracy)
    """

    def cross_entropy(forward: Forward, x: Array, y: Array, mask: Array | None = None) -> Array:
        logits, counts = forward(x), kept(y, mask, ignore)
        if counts is None:
            return _entropy(logits, y, "mean")
        each = _entropy(logits, mx.where(counts, y, 0), "none")
        return mx.where(counts, each, 0.0).sum() / mx.maximum(counts.sum(), 1)

    folds = (perplexity(ignore=ignore), token_accuracy(ignore=ignore)) if metrics is None else checked(metrics)
    watched = monitor or _usual("val_perplexity", folds)
    return Task("language_modeling", loss or cross_entropy, folds, watched, mode, collate or _shifted)


def as_task(task: Any) -> Task:
    """Take a Task, or a loss alone as a task without metrics.

    >>> as_task(lambda model, x: model(x).mean()).monitor
    'val_loss'
    """
    if isinstance(task, Task):
        return task
    if task in (classification, regression, language_modeling):
        raise TypeError(f"a task is what {task.__name__}() returns: call it")
    if callable(task):
        return Task(name_of(task), task)
    raise TypeError(f"a task is a Task, such as classification(), or a loss function; got {type(task).__name__}")


def _usual(name: str, metrics: Sequence[Metric]) -> str:
    """Return what is usually watched where its metric is there, else the loss."""
    return name if name in [f"val_{m.name}" for m in metrics] else "val_loss"


def _cross_entropy(forward: Forward, x: Array, y: Array) -> Array:
    logits = forward(x)
    _check_batch(y)
    if y.ndim < logits.ndim and not mx.issubdtype(y.dtype, mx.integer):
        raise TypeError(f"classification needs integer labels; y is {y.dtype} {y.shape}: y.astype(mx.int32)")
    return _entropy(logits, y, "mean") if y.ndim < logits.ndim else losses.cross_entropy(logits, y, reduction="mean")


def _entropy(logits: Array, y: Array, reduction: Literal["mean", "none"]) -> Array:
    """Return the cross entropy, NaN if a label is none: MLX would read and write out of bounds for it."""
    safe = within(logits, y)
    entropy = losses.cross_entropy(logits, safe, reduction=reduction)
    return entropy * mx.where(mx.any(safe != y.astype(mx.int64)), mx.nan, 1.0)


def _check_batch(y: Array) -> None:
    if y.ndim == 0:
        raise ValueError("y is one number: a step takes batches, not rows: data.batch(n)")


def _squared_error(forward: Forward, x: Array, y: Array) -> Array:
    output = forward(x)
    _check_batch(y)
    targets = as_targets(output, y)
    if output.shape != targets.shape:
        raise ValueError(f"regression needs targets of the predictions' shape; they are {output.shape}, y is {y.shape}")
    return losses.mse_loss(output, targets, reduction="mean")


def _xy(batch: Batch) -> Batch:
    """Leave pairs and dicts with x and y as they are; name those of other dicts that stand for them."""
    if not isinstance(batch, dict) or ("x" in batch and "y" in batch):
        return batch
    known = bound(batch, {"x": True, "y": True}, "a loss of x and y")
    taken = [key for key in batch if any(batch[key] is value for value in known.values())]
    return {**known, **{key: value for key, value in batch.items() if key not in taken}}


def _shifted(batch: Batch) -> Batch:
    """Make inputs and targets of one array of tokens."""
    if isinstance(batch, (dict, tuple, list)):
        if len(batch) > 1:
            return _xy(batch)
        (batch,) = batch.values() if isinstance(batch, dict) else batch
    if batch.ndim != 2 or batch.shape[1] < 2:
        raise ValueError(f"a batch of tokens is an array (n, tokens + 1); got {tuple(batch.shape)}")
    return batch[:, :-1], batch[:, 1:]
