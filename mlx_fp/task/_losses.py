"""The losses of the tasks. Each returns a `Mean`: a total and a weight, over the values that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..core._entropy import log_softmax
from ..core._mlx import mx
from ..core._types import Array, Forward, Tree
from ..nn import losses
from ._labels import as_column, as_targets, counting, labels_of
from ._mean import Mean, mean

__all__ = ["as_class_weights", "call_on", "check_batch", "entropy", "output_of", "squared_error"]

NO_CONTEXT: Mapping[str, Tree] = MappingProxyType({})
"""No input beside the columns of the batch."""


def as_class_weights(class_weights: Array | list[float] | tuple[float, ...]) -> Array:
    """Return the weight of each class as float32, `(classes,)`; ValueError for other shapes and values.

    >>> as_class_weights([1, 3])
    array([1, 3], dtype=float32)
    """
    weights = mx.array(class_weights).astype(mx.float32)
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"class_weights have a weight for each class, (classes,); they are {weights.shape}")
    if not mx.all((weights >= 0) & (weights < mx.inf)).item():
        raise ValueError(f"class_weights are finite numbers, 0 or more; got {weights.tolist()}")
    return weights


def check_batch(x: Tree, y: Array) -> None:
    """Raise ValueError for a row in place of a batch. In a row, `x` and `y` differ in the length of their first axis.

    In a dict, tuple or list `x`, one array with the rows of `y` is enough. For example, edges of a graph are no rows.

    >>> check_batch(mx.zeros((8, 5)), mx.zeros((8, 3)))
    >>> check_batch(mx.zeros((5,)), mx.zeros((3,)))
    Traceback (most recent call last):
    ValueError: x is (5,) and y is (3,), ...: a step takes batches, not rows: data.batch(n)
    """
    if y.ndim == 0:
        raise ValueError("y is one number: a step takes batches, not rows: data.batch(n)")
    is_container = isinstance(x, (dict, tuple, list))
    columns = (x.values() if isinstance(x, dict) else x) if is_container else (x,)
    shapes = [tuple(column.shape) for column in columns if hasattr(column, "shape")]
    if shapes and not any(shape[:1] == y.shape[:1] for shape in shapes):
        raise ValueError(
            f"x is {', '.join(map(str, shapes))} and y is {y.shape}, and a batch has as many rows, along the first "
            "axis, in both: a step takes batches, not rows: data.batch(n)"
        )


def output_of(
    forward: Forward, x: Tree, y: Tree, inputs: Mapping[str, Tree], context: Mapping[str, Tree] = NO_CONTEXT
) -> Tree:
    """Call the model on `x`. Where the batch has no `x`, which is `...` here, call it on the inputs by their names.

    The model gets `context` by name, too: for example, an attention mask.

    >>> output_of(lambda a, b: a + b, ..., mx.zeros((2,)), {"a": mx.ones((2,)), "b": mx.ones((2,))}).tolist()
    [2.0, 2.0]
    """
    if y is ...:
        raise ValueError("a task compares the output of the model with a target, and the batch has no y")
    if x is ... and not inputs:
        raise ValueError("the batch has a target y, and no x or other inputs")
    if x is not ... and inputs:
        rest = ", ".join(inputs)
        raise TypeError(f"the model takes x, and the batch has further columns, {rest}: data.collate leaves them out")
    check_batch(inputs if x is ... else x, y)
    return call_on(forward, x, inputs, context)


def call_on(
    model: Callable[..., Tree], x: Tree, inputs: Mapping[str, Tree], context: Mapping[str, Tree] = NO_CONTEXT
) -> Tree:
    """Call a model on `x`, or on the inputs by their names where the batch has no `x`, which is `...` here.

    >>> call_on(lambda x: x, 3, {}), call_on(lambda a, b: a + b, ..., {"a": 1}, {"b": 2})
    (3, 3)
    """
    return model(**inputs, **context) if x is ... else model(x, **context)


def entropy(logits: Array, y: Array, mask: Array | None, ignore: int | None, class_weights: Array | None) -> Mean:
    """Return the cross entropy as a mean over the labels that count, each with the weight of its class.

    A label that counts and is no class makes the loss NaN; MLX alone would read and write out of bounds for it. For
    labels that are probabilities, the class weights multiply the terms of the sum over classes, and each label has the
    weight 1, as in PyTorch.

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
    values = losses.sound_cross_entropy(logits, labels) * mx.where(sound, 1.0, mx.nan)
    return mean(values, where=counts, weights=None if class_weights is None else class_weights[labels])


def squared_error(output: Array, y: Array, mask: Array | None) -> Mean:
    """Return the squared error as a mean over the targets that count.

    >>> squared_error(mx.array([[1.0], [3.0]]), mx.array([1.0, 1.0]), None)
    Mean(total=array(4, dtype=float32), weight=array(2, dtype=float32))
    """
    targets = as_targets(output, y, "regression")
    counts = None if mask is None else counting(targets, as_column(output, mask), None)
    return mean(losses.mse_loss(output, targets, reduction="none"), where=counts)


def _soft_entropy(logits: Array, probabilities: Array, class_weights: Array | None) -> Array:
    """Return the cross entropy of each label that is a vector of probabilities."""
    if class_weights is None:
        return losses.sound_cross_entropy(logits, probabilities)
    return -(class_weights * probabilities * log_softmax(logits)).sum(axis=-1)
