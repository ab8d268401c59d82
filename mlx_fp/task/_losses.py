"""The losses of the tasks, each a `Mean`: a total, and the number or weight of the values that count in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core._mlx import mx
from ..core._types import Array, Forward
from ..nn import losses
from ._labels import as_column, as_targets, kept, labels_of
from ._mean import Mean, mean

__all__ = ["as_class_weights", "check_batch", "entropy", "output_of", "squared_error"]


def as_class_weights(given: Any) -> Array:
    """Take one weight for each class, an array or a list, as float32 `(classes,)`; ValueError for others.

    >>> as_class_weights([1, 3])
    array([1, 3], dtype=float32)
    """
    weights = mx.array(given).astype(mx.float32)
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"class_weights have a weight for each class, (classes,); they are {weights.shape}")
    if not mx.all((weights >= 0) & (weights < mx.inf)).item():
        raise ValueError(f"class_weights are finite numbers, 0 or more; got {weights.tolist()}")
    return weights


def check_batch(x: Any, y: Array) -> None:
    """Raise ValueError for a row in place of a batch, which shows in `x` and `y` not having as many rows.

    Of a dict, tuple or list `x` one array with the rows of `y` is enough: a graph's edges or a table are no rows.

    >>> check_batch(mx.zeros((8, 5)), mx.zeros((8, 3)))
    >>> check_batch(mx.zeros((5,)), mx.zeros((3,)))
    Traceback (most recent call last):
    ValueError: x is (5,) and y is (3,), ...: a step takes batches, not rows: data.batch(n)
    """
    if y.ndim == 0:
        raise ValueError("y is one number: a step takes batches, not rows: data.batch(n)")
    several = isinstance(x, (dict, tuple, list))
    parts = (x.values() if isinstance(x, dict) else x) if several else (x,)
    shapes = [tuple(part.shape) for part in parts if hasattr(part, "shape")]
    if shapes and not any(shape[:1] == y.shape[:1] for shape in shapes):
        raise ValueError(
            f"x is {', '.join(map(str, shapes))} and y is {y.shape}, and a batch has as many rows, along the first "
            "axis, in both: a step takes batches, not rows: data.batch(n)"
        )


def output_of(forward: Forward, x: Any, y: Any, inputs: Mapping[str, Any]) -> Any:
    """Run the model on `x`, or, where the batch has none, on its inputs by their names; `...` stands for none.

    >>> output_of(lambda a, b: a + b, ..., mx.zeros((2,)), {"a": mx.ones((2,)), "b": mx.ones((2,))}).tolist()
    [2.0, 2.0]
    """
    if y is ...:
        raise ValueError("a task compares what the model returns with a target, and the batch has no y")
    if x is ... and not inputs:
        raise ValueError("the batch has a target y, and no x or other inputs")
    if x is not ... and inputs:
        rest = ", ".join(inputs)
        raise TypeError(f"the model takes x, and the batch has further columns, {rest}: data.collate leaves them out")
    check_batch(inputs if x is ... else x, y)
    return forward(**inputs) if x is ... else forward(x)


def entropy(logits: Array, y: Array, mask: Array | None, ignore: int | None, class_weights: Array | None) -> Mean:
    """Return the cross entropy as a mean over the labels that count, each weighing as its class.

    A label that counts and is no class makes it NaN: MLX would read and write out of bounds for it. Of labels that are
    probabilities the class weights stand within the sum over classes, and each label weighs 1, as in PyTorch.

    >>> entropy(mx.zeros((3, 2)), mx.array([0, 1, -1]), None, -1, mx.array([1.0, 3.0])).weight.item()
    4.0
    """
    classes = logits.shape[-1] if logits.ndim else 0
    if class_weights is not None and class_weights.shape != (classes,):
        raise ValueError(
            f"class_weights have a weight for each class of logits {logits.shape}, ({classes},); "
            f"they are {class_weights.shape}"
        )
    labels, counts, sound = labels_of(logits, y, mask, ignore)
    if y.ndim == logits.ndim:
        return mean(_soft_entropy(logits, y, class_weights), where=counts)
    each = losses.sound_cross_entropy(logits, labels) * mx.where(sound, 1.0, mx.nan)
    return mean(each, where=counts, weights=None if class_weights is None else class_weights[labels])


def squared_error(output: Array, y: Array, mask: Array | None) -> Mean:
    """Return the squared error as a mean over the numbers that count.

    >>> squared_error(mx.array([[1.0], [3.0]]), mx.array([1.0, 1.0]), None)
    Mean(total=array(4, dtype=float32), weight=array(2, dtype=float32))
    """
    targets = as_targets(output, y, "regression")
    counts = None if mask is None else kept(targets, as_column(output, mask), None)
    return mean(losses.mse_loss(output, targets, reduction="none"), where=counts)


def _soft_entropy(logits: Array, chances: Array, class_weights: Array | None) -> Array:
    if class_weights is None:
        return losses.sound_cross_entropy(logits, chances)
    surprise = mx.logsumexp(logits, axis=-1, keepdims=True) - logits
    return (class_weights * chances * surprise).sum(axis=-1)
