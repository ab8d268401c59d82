"""A mean as a total and a weight, so that means of parts are the mean of the whole."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["Mean", "mean"]


class Mean(NamedTuple):
    """A mean as its two parts, float32 scalars; a loss may return one in the place of a scalar. Made by `mean`.

    A scalar can be added to a Mean, and a Mean can be multiplied by one: the result has the same weight. Where the
    scalar is an array, the Mean stands on the left of it.

    >>> (2 * Mean(mx.array(6.0), mx.array(3.0)) + 1).value.item()
    5.0
    """

    total: Array
    """The weighted sum of the values."""
    weight: Array
    """The sum of the weights: the number of values that count, where all weigh the same."""

    @property
    def value(self) -> Array:
        """The mean, a scalar; NaN where nothing counts, and then its gradient is 0."""
        weight = mx.stop_gradient(self.weight)
        counts = weight > 0
        return mx.where(counts, self.total / mx.where(counts, weight, 1.0), mx.nan)

    def __add__(self, other: Any) -> Mean:
        _check_number("add", other)
        return Mean(self.total + other * self.weight, self.weight)

    def __radd__(self, other: Any) -> Mean:
        return self.__add__(other)

    def __mul__(self, other: Any) -> Mean:
        _check_number("multiply", other)
        return Mean(self.total * other, self.weight)

    def __rmul__(self, other: Any) -> Mean:
        return self.__mul__(other)


def mean(values: Array, *, where: Array | None = None, weights: Array | None = None) -> Mean:
    """Take the mean of values as a total and a weight, which is right for any way of cutting a batch.

    Args:
        values: an array of any shape, such as the loss of each row or token.
        where: which values count, nonzero or True; all of them by default. Its shape is that of `values`, or of its
            first axes: `(n,)` for values `(n, tokens)`.
        weights: how much each value weighs, 0 or more, in such a shape; 1 by default. No gradient goes through them.

    Raises:
        ValueError: `where` or `weights` has another shape.

    >>> mean(mx.array([1.0, 2.0, 6.0]), where=mx.array([True, True, False])).value.item()
    1.5
    >>> mean(mx.array([1.0, 2.0]), weights=mx.array([3.0, 1.0]))
    Mean(total=array(5, dtype=float32), weight=array(4, dtype=float32))
    """
    values = values.astype(mx.float32)
    if where is None and weights is None:
        return Mean(values.sum(), mx.array(float(values.size)))
    each = mx.ones_like(values) if weights is None else _spread("weights", values, weights).astype(mx.float32)
    if where is not None:
        counts = _spread("where", values, where) != 0
        values, each = mx.where(counts, values, 0.0), mx.where(counts, each, 0.0)
    each = mx.stop_gradient(each)
    return Mean((values * each).sum(), each.sum())


def _spread(name: str, values: Array, given: Array) -> Array:
    """Return an array broadcast to the shape of the values, of whose first axes it has one place each."""
    shape = given.shape + (1,) * (values.ndim - given.ndim)
    if len(shape) != values.ndim or any(size not in (1, full) for size, full in zip(shape, values.shape, strict=True)):
        raise ValueError(
            f"{name} of a mean has the shape of its values, {values.shape}, or of their first axes; it is {given.shape}"
        )
    return mx.broadcast_to(given.reshape(shape), values.shape)


def _check_number(verb: str, other: Any) -> None:
    if isinstance(other, Mean) or not (isinstance(other, (int, float)) or getattr(other, "ndim", None) == 0):
        kind = f"an array of shape {other.shape}" if hasattr(other, "shape") else type(other).__name__
        raise TypeError(
            f"{verb} a Mean and a scalar, not {kind}; two Means have weights of their own; return one as the loss and "
            "the other as a figure"
        )
