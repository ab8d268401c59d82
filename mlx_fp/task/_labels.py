"""Labels and targets: find those that count, and bring them into a shape and range that are safe to use."""

from __future__ import annotations

from typing import NamedTuple

from ..core._mlx import mx
from ..core._types import Array
from ..nn._bounds import within_bounds

__all__ = ["Labels", "as_column", "as_labels", "as_targets", "check_ignore", "counting", "labels_of", "predicted"]


class Labels(NamedTuple):
    """The labels of a batch, as indices that are safe to gather with."""

    classes: Array
    """The class of each label, int32, in `[0, classes)`."""
    counts: Array | None
    """Whether each label counts, bool; None where all count."""
    sound: Array
    """Whether all labels that count are classes, a bool scalar."""


def labels_of(logits: Array, y: Array, mask: Array | None, ignore: int | None) -> Labels:
    """Return the labels of logits; see `as_labels` and `counting`. A label that counts and is no class is not sound.

    >>> [labels_of(mx.zeros((2, 3)), mx.array([1, -100]), None, ignore).sound.item() for ignore in (None, -100)]
    [False, True]
    """
    labels = as_labels(logits, y)
    counts = counting(labels, mask, ignore)
    classes, sound = within_bounds(labels, logits.shape[-1])
    invalid = mx.any(mx.isnan(y), axis=-1) if y.ndim == logits.ndim else ~sound
    return Labels(classes, counts, ~mx.any(invalid if counts is None else invalid & counts))


def as_labels(logits: Array, y: Array) -> Array:
    """Return labels as classes, int `(n, …)`. Probabilities, `(n, …, classes)`, become the likeliest class.

    Raises:
        ValueError: The logits have a single class, or the labels have neither shape.
        TypeError: The labels are classes and no integers.

    >>> as_labels(mx.zeros((2, 3)), mx.array([[0.0, 1.0, 0.0], [0.2, 0.1, 0.7]])).tolist()
    [1, 2]
    """
    if logits.ndim < 2 or logits.shape[-1] < 2:
        raise ValueError(f"classes are told apart by logits (n, …, classes), two or more; they are {logits.shape}")
    if y.shape == logits.shape:
        return mx.argmax(y, axis=-1)
    if y.shape != logits.shape[:-1]:
        raise ValueError(f"labels of logits {logits.shape} are {logits.shape[:-1]}, or as the logits; y is {y.shape}")
    if y.dtype == mx.bool_:
        return y.astype(mx.int32)
    if not mx.issubdtype(y.dtype, mx.integer):
        raise TypeError(f"classes need integer labels; y is {y.dtype} {y.shape}: y.astype(mx.int32)")
    return y


def counting(y: Array, mask: Array | None, ignore: int | None) -> Array | None:
    """Return whether each label counts, bool in the shape of `y`; None where all count.

    Raises:
        ValueError: The mask has another shape.

    >>> counting(mx.array([1, 0, 2]), mx.array([1, 1, 0]), 0).tolist()
    [True, False, False]
    """
    not_ignored = None if ignore is None else y != ignore
    if mask is None:
        return not_ignored
    if mask.ndim != y.ndim or any(size not in (1, full) for size, full in zip(mask.shape, y.shape, strict=True)):
        raise ValueError(f"a mask has a place for each label or target, {y.shape}; it is {mask.shape}")
    mask = mx.broadcast_to(mask, y.shape)
    return mask != 0 if not_ignored is None else not_ignored & (mask != 0)


def check_ignore(ignore: object) -> None:
    """Raise TypeError for a value of `ignore` that is no label."""
    if ignore is not None and (isinstance(ignore, bool) or not hasattr(ignore, "__index__")):
        raise TypeError(f"ignore is a label, an int; got {ignore!r}")


def as_column(output: Array, y: Array) -> Array:
    """Reshape an array `(n,)` to `(n, 1)` where predictions are `(n, 1)`; return others unchanged.

    >>> as_column(mx.zeros((2, 1)), mx.array([1.0, 2.0])).shape
    (2, 1)
    """
    return y[..., None] if y.ndim == output.ndim - 1 and output.shape[-1] == 1 else y


def as_targets(output: Array, y: Array, name: str) -> Array:
    """Return targets in the shape of the predictions. Targets `(n,)` become a column for predictions `(n, 1)`.

    The error for another shape names the metric or the task, `name`, and both shapes.

    >>> as_targets(mx.zeros((2, 3)), mx.zeros((3,)), "mse")
    Traceback (most recent call last):
    ValueError: mse needs targets of the predictions' shape; they are (2, 3), y is (3,)
    """
    targets = as_column(output, y)
    if output.shape != targets.shape:
        raise ValueError(f"{name} needs targets of the predictions' shape; they are {output.shape}, y is {y.shape}")
    return targets


def predicted(logits: Array) -> tuple[Array, Array]:
    """Return the class of the largest logit, and whether that logit is a number.

    >>> [array.tolist() for array in predicted(mx.array([[0.0, 1.0], [mx.nan, mx.nan]]))]
    [[1, 0], [True, False]]
    """
    best = mx.argmax(logits, axis=-1)
    largest = mx.take_along_axis(logits, best[..., None], axis=-1).squeeze(-1)
    return best, largest == largest
