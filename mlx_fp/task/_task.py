"""What a model is trained for: a loss, metrics, what to watch, and the shape of batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core._frozen import freeze_field
from ..core._pickling import Picklable
from ..core._signature import name_of
from ..core._types import Array, Batch, Forward, Loss
from ..data._collate import bound, fills
from ._folds import Metric, check_mode, checked
from ._labels import check_ignore
from ._losses import as_class_weights, entropy, output_of, squared_error
from ._mean import Mean
from .metrics import accuracy, mae, mse, perplexity, r2, token_accuracy

__all__ = ["Task", "as_task", "classification", "language_modeling", "regression"]


@dataclass(frozen=True, slots=True)
class Task(Picklable):
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
    unit: str = "rows"
    """The name of what the weight of its loss counts, such as "tokens"."""

    def __post_init__(self) -> None:
        if not callable(self.loss):
            raise TypeError(f"the loss of a task is a function of the model and a batch; got {self.loss!r}")
        object.__setattr__(self, "metrics", checked(self.metrics))
        if self.mode is not None:
            check_mode(self.mode)
        freeze_field(self, "collate")

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(m.name for m in self.metrics)})"


def classification(
    *,
    ignore: int | None = None,
    class_weights: Any = None,
    loss: Callable[..., Any] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: Any = None,
) -> Task:
    """Tell classes apart: logits `(n, …, classes)` against labels `y`, int `(n, …)`; cross entropy and accuracy.

    Batches are pairs `(x, y)`, or dicts with `x` and `y`, or with names that stand for them, see `data.bind`. Where no
    column stands for `x`, the model takes all but `y` and `mask` by name. Labels do not count where a third column
    `mask` is 0. Labels may be probabilities, in the shape of the logits. A label that counts and is not from 0 to
    classes - 1 makes the loss NaN, which ends a run: MLX would read and write out of bounds.

    Args:
        ignore: a label that counts neither in the loss nor in the accuracy.
        class_weights: how much a label of each class weighs in the loss, an array or list `(classes,)`. The loss is the
            weighted mean. For labels that are probabilities they weigh the terms of a label's cross entropy, and the
            loss is the plain mean over the labels. Both are as in PyTorch.
        loss: replaces the loss, `loss(forward, x, y)`.
        metrics: replace the accuracy.
        monitor: the figure to watch, `val_accuracy` by default.
        mode: `"min"` or `"max"`; the direction is that of the metric by default.
        collate: a spec for `data.collate`.

    Raises:
        ValueError: `class_weights` are not one weight, 0 or more, for each class, or `loss` replaces the loss that they
            are for.

    >>> classification(ignore=-100, class_weights=[1.0, 3.0])
    classification(accuracy)
    """
    if loss is not None and class_weights is not None:
        raise ValueError("class_weights are for the cross entropy, which `loss` replaces: give one of the two")
    check_ignore(ignore)
    weights = None if class_weights is None else as_class_weights(class_weights)

    def cross_entropy(forward: Forward, x: Any = ..., y: Any = ..., mask: Array | None = None, **inputs: Any) -> Mean:
        return entropy(output_of(forward, x, y, inputs), y, mask, ignore, weights)

    folds = (accuracy(ignore=ignore),) if metrics is None else checked(metrics)
    watched = monitor or _usual("val_accuracy", folds)
    return Task("classification", loss or cross_entropy, folds, watched, mode, collate or _xy)


def regression(
    *,
    loss: Callable[..., Any] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: Any = None,
) -> Task:
    """Predict numbers `(n, …)`, targets `y` of the same shape, or `(n,)` for predictions `(n, 1)`; mean squared error.

    The loss is the mean over the numbers of `y`. Metrics are MSE, MAE and R², of one output unless `metrics` says
    otherwise. Batches and options as in `classification`.

    >>> regression()
    regression(mse, mae, r2)
    """

    def mean_squared_error(
        forward: Forward, x: Any = ..., y: Any = ..., mask: Array | None = None, **inputs: Any
    ) -> Mean:
        return squared_error(output_of(forward, x, y, inputs), y, mask)

    folds = (mse(), mae(), r2()) if metrics is None else checked(metrics)
    return Task("regression", loss or mean_squared_error, folds, monitor or "val_loss", mode, collate or _xy)


def language_modeling(
    *,
    ignore: int | None = None,
    loss: Callable[..., Any] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: Any = None,
) -> Task:
    """Predict the next token: logits `(n, tokens, vocabulary)` against `y`, int `(n, tokens)`.

    A batch that is one array of tokens, `(n, tokens + 1)`, is its own target, one place on. Padding is left out of loss
    and metrics where `y` is `ignore`, or where a third column `mask` is 0. The loss is the mean over the tokens that
    count. Other batches and options as in `classification`.

    >>> language_modeling()
    language_modeling(perplexity, token_accuracy)
    """
    check_ignore(ignore)

    def cross_entropy(forward: Forward, x: Any = ..., y: Any = ..., mask: Array | None = None, **inputs: Any) -> Mean:
        return entropy(output_of(forward, x, y, inputs), y, mask, ignore, None)

    folds = (perplexity(ignore=ignore), token_accuracy(ignore=ignore)) if metrics is None else checked(metrics)
    watched = monitor or _usual("val_perplexity", folds)
    return Task("language_modeling", loss or cross_entropy, folds, watched, mode, collate or _shifted, "tokens")


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


def _xy(batch: Batch) -> Batch:
    """Leave pairs and dicts with x and y as they are; name those of other dicts that stand for them.

    Where nothing stands for x, all columns but target and mask are inputs under their own names.

    >>> _xy({"question": 1, "context": 2, "label": 3})
    {'y': 3, 'question': 1, 'context': 2}
    """
    if not isinstance(batch, dict) or ("x" in batch and "y" in batch):
        return batch
    if not fills("x", batch, taken=("y",)) and len(batch) > 1 + ("mask" in batch):
        found = bound(batch, {"y": True}, "a target y")
        return {**found, **{key: value for key, value in batch.items() if value is not found["y"]}}
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
