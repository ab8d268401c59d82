"""Labels and targets: which of them count, and in which shape and range they are safe to use."""

from __future__ import annotations

from .door import mx
from .types import Array

__all__ = ["as_targets", "kept", "within"]


def kept(y: Array, mask: Array | None, ignore: int | None) -> Array | None:
    """Say which labels count, bool in the shape of `y`; None for all of them.

    >>> kept(mx.array([1, 0, 2]), mx.array([1, 1, 0]), 0).tolist()
    [True, False, False]
    """
    known = None if ignore is None else y != ignore
    if mask is None:
        return known
    return mask != 0 if known is None else known & (mask != 0)


def as_targets(output: Array, y: Array) -> Array:
    """Give targets `(n,)` the shape of predictions `(n, 1)`; others stay.

    >>> as_targets(mx.zeros((2, 1)), mx.array([1.0, 2.0])).shape
    (2, 1)
    """
    return y[..., None] if y.ndim == output.ndim - 1 and output.shape[-1] == 1 else y


def within(logits: Array, y: Array) -> Array:
    """Bring labels into 0 to classes - 1, int32: for others MLX reads and writes out of bounds.

    >>> within(mx.zeros((3, 4)), mx.array([-1, 2, 7])).tolist()
    [0, 2, 3]
    """
    return mx.clip(y.astype(mx.int32), 0, logits.shape[-1] - 1)
