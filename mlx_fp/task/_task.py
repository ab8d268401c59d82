"""Tasks: a loss, metrics, the figure to watch, and the shape of batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..core._frozen import freeze_field
from ..core._pickling import Picklable
from ..core._signature import name_of
from ..core._types import Array, Batch, Forward, Loss, Tree
from ..data._collate import Selector, bound, fills
from ._folds import Metric, check_mode, checked
from ._labels import check_ignore
from ._losses import as_class_weights, entropy, output_of, squared_error
from ._mean import Mean
from .metrics import accuracy, mae, mse, r2

__all__ = [
    "CollateSpec",
    "Task",
    "as_task",
    "check_uncut",
    "classification",
    "columns_of",
    "regression",
    "watched_figure",
]

CollateSpec: TypeAlias = str | Mapping[str, Selector] | Callable[..., object]
"""A spec for `data.collate`, for example `{"x": "image", "y": "label"}`."""


@dataclass(frozen=True, slots=True)
class Task(Picklable):
    """The purpose of a model: a loss, metrics, the figure to watch, and the shape of batches."""

    name: str
    """The name of the task in messages and reports."""
    loss: Loss
    """The function `loss(forward, **batch)`, as for `train_step`."""
    metrics: tuple[Metric, ...] = ()
    """The metrics that each step computes."""
    monitor: str = "val_loss"
    """The name of the figure that a run watches."""
    mode: str | None = None
    """The direction of that figure, `"min"` or `"max"`. None: the direction of the metric of this name."""
    collate: CollateSpec | None = None
    """A spec for `data.collate`, which shapes each batch of a dataset. None: batches stay as they are."""
    unit: str = "rows"
    """The unit of the weight of the loss, for example "tokens"."""
    whole_batches: bool = False
    """Whether the loss compares the rows of a batch with each other, so that no batch can be computed in parts."""

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
    class_weights: Array | list[float] | tuple[float, ...] | None = None,
    loss: Loss | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: CollateSpec | None = None,
) -> Task:
    """Make the task of classification: cross entropy of logits `(n, …, classes)` and labels int `(n, …)`, and accuracy.

    Batches are pairs `(x, y)`, or dicts with `x` and `y` or with names that stand for them (see `data.bind`). Where no
    column stands for `x`, the model receives all columns but `y` and `mask`, by name. A label does not count where a
    third column `mask` is 0. Labels may be probabilities, in the shape of the logits.

    A label that counts and lies outside `[0, classes)` makes the loss NaN, and a NaN loss ends a run. MLX alone would
    read and write out of bounds for such a label.

    Args:
        ignore: A label that counts neither in the loss nor in the accuracy. By default every label counts.
        class_weights: The weight of each class in the loss, `(classes,)`; by default all classes have one weight. The
            loss is the weighted mean. For labels that are probabilities, the weights multiply the terms of the cross
            entropy of a label, and the loss is the plain mean over the labels. Both are as in PyTorch.
        loss: A function `loss(forward, x, y)` that replaces the loss.
        metrics: Metrics that replace the accuracy.
        monitor: The figure to watch, by default `val_accuracy` where that metric exists, else `val_loss`.
        mode: The direction of that figure, `"min"` or `"max"`. By default it is the direction of the metric.
        collate: A spec for `data.collate`, which shapes the batches. By default columns are bound by their names.

    Returns:
        A Task, for `fp.trainer`.

    Raises:
        ValueError: `class_weights` are not one weight, 0 or more, for each class; or `loss` replaces the loss that
            uses them.

    >>> classification(ignore=-100, class_weights=[1.0, 3.0])
    classification(accuracy)
    """
    if loss is not None and class_weights is not None:
        raise ValueError("class_weights are for the cross entropy, which `loss` replaces: give one of the two")
    check_ignore(ignore)
    weights = None if class_weights is None else as_class_weights(class_weights)

    def cross_entropy(
        forward: Forward, x: Tree = ..., y: Tree = ..., mask: Array | None = None, **inputs: Tree
    ) -> Mean:
        return entropy(output_of(forward, x, y, inputs), y, mask, ignore, weights)

    folds = (accuracy(ignore=ignore),) if metrics is None else checked(metrics)
    watched = monitor or watched_figure("val_accuracy", folds)
    return Task("classification", loss or cross_entropy, folds, watched, mode, collate or columns_of)


def regression(
    *,
    loss: Loss | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: CollateSpec | None = None,
) -> Task:
    """Make the task of regression: the mean squared error of numbers `(n, …)` and targets `y` of the same shape.

    Targets may be `(n,)` for predictions `(n, 1)`. The loss is the mean over the numbers of `y`. Batches are those of
    `classification`. A target does not count where a third column `mask` is 0.

    Args:
        loss: A function `loss(forward, x, y)` that replaces the loss.
        metrics: Metrics that replace MSE, MAE and R² of one output.
        monitor: The figure to watch, by default `val_loss`.
        mode: The direction of that figure, `"min"` or `"max"`. By default it is the direction of the metric.
        collate: A spec for `data.collate`, which shapes the batches. By default columns are bound by their names.

    Returns:
        A Task, for `fp.trainer`.

    >>> regression()
    regression(mse, mae, r2)
    """

    def mean_squared_error(
        forward: Forward, x: Tree = ..., y: Tree = ..., mask: Array | None = None, **inputs: Tree
    ) -> Mean:
        return squared_error(output_of(forward, x, y, inputs), y, mask)

    folds = (mse(), mae(), r2()) if metrics is None else checked(metrics)
    return Task("regression", loss or mean_squared_error, folds, monitor or "val_loss", mode, collate or columns_of)


def as_task(task: object) -> Task:
    """Return a Task unchanged, and a loss function as a task without metrics.

    Args:
        task: A Task or a loss function.

    Raises:
        TypeError: For other values, for example `classification` without its call.

    >>> as_task(lambda model, x: model(x).mean()).monitor
    'val_loss'
    """
    if isinstance(task, Task):
        return task
    if getattr(task, "__annotations__", {}).get("return") in ("Task", Task):
        raise TypeError(f"a task is the result of {name_of(task)}(): call it")
    if callable(task):
        return Task(name_of(task), task)
    raise TypeError(f"a task is a Task, such as classification(), or a loss function; got {type(task).__name__}")


def check_uncut(task: Task, **counts: int) -> None:
    """Raise ValueError for options that cut batches whose rows the loss compares with each other.

    >>> check_uncut(Task("pairs", lambda model, a, b: None, whole_batches=True), parts=2, streams=1)
    Traceback (most recent call last):
    ValueError: the loss of pairs compares the rows of a batch, and parts=2 cuts batches: leave it out, or ...
    """
    cuts = [f"{name}={count}" for name, count in counts.items() if count != 1]
    if task.whole_batches and cuts:
        raise ValueError(
            f"the loss of {task.name} compares the rows of a batch, and {', '.join(cuts)} cuts batches: leave it out, "
            "or take smaller batches"
        )


def watched_figure(name: str, metrics: Sequence[Metric]) -> str:
    """Return the name of a figure where one of the metrics has it, else that of the loss."""
    return name if name in [f"val_{m.name}" for m in metrics] else "val_loss"


def columns_of(batch: Batch) -> Batch:
    """Rename the columns of a dict that stand for x and y. Pairs, and dicts with x and y, stay as they are.

    Where no column stands for x, all columns but target and mask are inputs under their own names.

    >>> columns_of({"question": 1, "context": 2, "label": 3})
    {'y': 3, 'question': 1, 'context': 2}
    """
    if not isinstance(batch, dict) or ("x" in batch and "y" in batch):
        return batch
    if not fills("x", batch, taken=("y",)) and len(batch) > 1 + ("mask" in batch):
        target = bound(batch, {"y": True}, "a target y")
        return {**target, **{key: value for key, value in batch.items() if value is not target["y"]}}
    renamed = bound(batch, {"x": True, "y": True}, "a loss of x and y")
    used = [key for key in batch if any(batch[key] is value for value in renamed.values())]
    return {**renamed, **{key: value for key, value in batch.items() if key not in used}}
