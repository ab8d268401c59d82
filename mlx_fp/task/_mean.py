"""A mean as a total and a weight. The means of parts of the data then give the mean of the whole."""

from __future__ import annotations

from typing import NamedTuple

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["Mean", "mean"]


class Mean(NamedTuple):
    """A mean as a total and a weight, two float32 scalars. `fp.mean` makes it, and a loss may return it.

    You can add a scalar to a Mean, and multiply a Mean by a scalar. The result has the same weight. Write the Mean on
    the left of a scalar that is an array, for example `fp.mean(values) + 0.01 * penalty`.

    >>> (2 * Mean(mx.array(6.0), mx.array(3.0)) + 1).value.item()
    5.0
    """

    total: Array
    """The weighted sum of the values."""
    weight: Array
    """The sum of the weights. Without weights it is the number of values that count."""

    @property
    def value(self) -> Array:
        """The mean, a scalar. Where no value counts it is NaN, and its gradient is 0."""
        weight = mx.stop_gradient(self.weight)
        counts = weight > 0
        return mx.where(counts, self.total / mx.where(counts, weight, 1.0), mx.nan)

    def __add__(self, other: float | Array) -> Mean:  # type: ignore[override]  # a tuple adds tuples
        _check_number("add", other)
        return Mean(self.total + other * self.weight, self.weight)

    def __radd__(self, other: float | Array) -> Mean:
        return self.__add__(other)

    def __mul__(self, other: float | Array) -> Mean:  # type: ignore[override]  # a tuple repeats itself
        _check_number("multiply", other)
        return Mean(self.total * other, self.weight)

    def __rmul__(self, other: float | Array) -> Mean:  # type: ignore[override]  # a tuple repeats itself
        return self.__mul__(other)


def mean(values: Array, *, where: Array | None = None, weights: Array | None = None) -> Mean:
    """Return the mean of values as a total and a weight, which is correct for every way to cut a batch.

    Args:
        values: An array of any shape, for example the loss of each row or token.
        where: Nonzero or True where a value counts; by default all values count. Its shape is that of `values` or of
            its first axes, for example `(n,)` for values `(n, tokens)`.
        weights: The weight of each value, 0 or more, in such a shape; 1 by default. No gradient flows through weights.

    Returns:
        A `Mean`.

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
    factors = mx.ones_like(values) if weights is None else _broadcast("weights", values, weights).astype(mx.float32)
    if where is not None:
        counts = _broadcast("where", values, where) != 0
        values, factors = mx.where(counts, values, 0.0), mx.where(counts, factors, 0.0)
    factors = mx.stop_gradient(factors)
    return Mean((values * factors).sum(), factors.sum())


def _broadcast(name: str, values: Array, array: Array) -> Array:
    """Broadcast an array, which has the first axes of `values`, to the shape of `values`."""
    shape = array.shape + (1,) * (values.ndim - array.ndim)
    if len(shape) != values.ndim or any(size not in (1, full) for size, full in zip(shape, values.shape, strict=True)):
        raise ValueError(
            f"{name} of a mean has the shape of its values, {values.shape}, or of their first axes; it is {array.shape}"
        )
    return mx.broadcast_to(array.reshape(shape), values.shape)


def _check_number(verb: str, other: object) -> None:
    """Raise TypeError for an operand that is no scalar."""
    if isinstance(other, Mean) or not (isinstance(other, (int, float)) or getattr(other, "ndim", None) == 0):
        kind = f"an array of shape {other.shape}" if hasattr(other, "shape") else type(other).__name__
        raise TypeError(
            f"{verb} a Mean and a scalar, not {kind}; two Means have weights of their own; return one as the loss and "
            "the other as a figure"
        )
