"""Labels and targets: which of them count, and in which shape and range they are safe to use."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..core._mlx import mx
from ..core._types import Array
from ..nn._bounds import within_bounds

__all__ = ["Labels", "as_column", "as_labels", "as_targets", "check_ignore", "kept", "labels_of", "predicted"]


class Labels(NamedTuple):
    """The labels of a batch, fit to gather with."""

    classes: Array
    """Which class each is, int32, 0 to classes - 1."""
    counts: Array | None
    """Which of them count, bool; None for all."""
    sound: Array
    """Whether all that count were classes, a bool scalar."""


def labels_of(logits: Array, y: Array, mask: Array | None, ignore: int | None) -> Labels:
    """Take the labels of logits, see `as_labels` and `kept`. A label that counts and is no class is not sound.

    >>> [labels_of(mx.zeros((2, 3)), mx.array([1, -100]), None, ignore).sound.item() for ignore in (None, -100)]
    [False, True]
    """
    labels = as_labels(logits, y)
    counts = kept(labels, mask, ignore)
    classes, sound = within_bounds(labels, logits.shape[-1])
    odd = mx.any(mx.isnan(y), axis=-1) if y.ndim == logits.ndim else ~sound
    return Labels(classes, counts, ~mx.any(odd if counts is None else odd & counts))


def as_labels(logits: Array, y: Array) -> Array:
    """Take labels that are probabilities, one-hot say, `(n, …, classes)`, as the likeliest class, int `(n, …)`.

    ValueError for logits of a single class, and for labels that are of neither shape. TypeError for classes that are no
    integers.

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


def kept(y: Array, mask: Array | None, ignore: int | None) -> Array | None:
    """Say which labels count, bool in the shape of `y`; None for all of them. ValueError for a mask of another shape.

    >>> kept(mx.array([1, 0, 2]), mx.array([1, 1, 0]), 0).tolist()
    [True, False, False]
    """
    known = None if ignore is None else y != ignore
    if mask is None:
        return known
    if mask.ndim != y.ndim or any(places not in (1, size) for places, size in zip(mask.shape, y.shape, strict=True)):
        raise ValueError(f"a mask has a place for each label or target, {y.shape}; it is {mask.shape}")
    mask = mx.broadcast_to(mask, y.shape)
    return mask != 0 if known is None else known & (mask != 0)


def check_ignore(ignore: Any) -> None:
    """Raise TypeError for what is no label."""
    if ignore is not None and (isinstance(ignore, bool) or not hasattr(ignore, "__index__")):
        raise TypeError(f"ignore is a label, an int; got {ignore!r}")


def as_column(output: Array, y: Array) -> Array:
    """Give an array `(n,)` the shape of predictions `(n, 1)`; others stay.

    >>> as_column(mx.zeros((2, 1)), mx.array([1.0, 2.0])).shape
    (2, 1)
    """
    return y[..., None] if y.ndim == output.ndim - 1 and output.shape[-1] == 1 else y


def as_targets(output: Array, y: Array, what: str) -> Array:
    """Return targets in the shape of the predictions, `(n,)` being a column; ValueError, with both, if it is another.

    >>> as_targets(mx.zeros((2, 3)), mx.zeros((3,)), "mse")
    Traceback (most recent call last):
    ValueError: mse needs targets of the predictions' shape; they are (2, 3), y is (3,)
    """
    targets = as_column(output, y)
    if output.shape != targets.shape:
        raise ValueError(f"{what} needs targets of the predictions' shape; they are {output.shape}, y is {y.shape}")
    return targets


def predicted(logits: Array) -> tuple[Array, Array]:
    """Return the class of the largest logit, and whether that is a number.

    >>> [one.tolist() for one in predicted(mx.array([[0.0, 1.0], [mx.nan, mx.nan]]))]
    [[1, 0], [True, False]]
    """
    best = mx.argmax(logits, axis=-1)
    largest = mx.take_along_axis(logits, best[..., None], axis=-1).squeeze(-1)
    return best, largest == largest
