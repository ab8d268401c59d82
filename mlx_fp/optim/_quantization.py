"""Eight bits for each number of an array, with a scale for each group of numbers, rounded at random.

A code is a step on the fourth root of a number. So the numbers of one group may differ by a factor of four billion: a
second moment is a square, and a small second moment that is rounded to zero would divide an update by zero.
"""

from __future__ import annotations

import math

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["GROUP", "from_codes", "to_codes"]

GROUP = 64
"""The number of consecutive elements that have one scale."""

_SIGNED, _UNSIGNED = 127, 255
"""The largest code of a group with negative numbers, on each side of `_ZERO`, and of a group without them."""

_ZERO = 128
"""The code of zero in a group with negative numbers."""

_SMALLEST = 1e-28
"""The smallest scale that divides."""


def to_codes(x: Array, key: Array) -> tuple[Array, Array]:
    """Round float32 numbers to 8 bits: `(codes, scales)`.

    The scale of a group is the largest magnitude in it; a negative scale marks a group with negative numbers. In a
    group without negative numbers, no positive number is rounded to zero. A number that is not finite makes the numbers
    of its group NaN or infinite.

    Args:
        x: An array in float32.
        key: The key of the random rounding: up or down, so that the mean of many roundings is the number.

    Returns:
        The codes, uint8 in the shape of `x`, and the scales, float32 `(groups,)`.

    >>> x = mx.array([0.5, -1.0, 0.0, 0.25])
    >>> codes, scales = to_codes(x, mx.random.key(0))
    >>> codes.dtype, scales.tolist(), mx.abs(from_codes(codes, scales) - x).max().item() < 0.02
    (mlx.core.uint8, [-1.0], True)
    """
    groups = _grouped(x)
    highest, lowest = groups.max(axis=1, keepdims=True), groups.min(axis=1, keepdims=True)
    largest, negative = mx.maximum(highest, -lowest), lowest < 0
    most, zero, least = _lattice(negative)
    target = mx.abs(groups) * (_fourth_power(most) / mx.maximum(largest, _SMALLEST))
    lower = mx.sqrt(mx.sqrt(target)).astype(mx.int32).astype(mx.float32)
    noise = (_noise(groups.shape, key).astype(mx.float32) + 0.5) / 256
    rises = target - _fourth_power(lower) > noise * (_fourth_power(lower + 1) - _fourth_power(lower))
    steps = lower + rises
    steps = mx.sign(groups) * (steps + least * (steps < 1))  # mx.minimum and mx.maximum are several times slower here
    return _ungrouped((zero + steps).astype(mx.uint8), x), (largest * mx.where(negative, -1.0, 1.0)).reshape(-1)


def from_codes(codes: Array, scales: Array) -> Array:
    """Return the float32 numbers of codes and scales, as `to_codes` makes them.

    >>> from_codes(mx.array([255, 0], mx.uint8), mx.array([2.0])).tolist()
    [2.0, 0.0]
    """
    scales = scales[:, None]
    most, zero, _ = _lattice(scales < 0)
    steps = (_grouped(codes).astype(mx.float32) - zero) / most
    return _ungrouped(mx.abs(scales) * steps * mx.abs(steps) * mx.square(steps), codes)


def _grouped(x: Array) -> Array:
    """Return an array as `(groups, 64)`, filled up with zeros."""
    flat = x.reshape(-1)
    return (mx.pad(flat, (0, -x.size % GROUP)) if x.size % GROUP else flat).reshape(-1, GROUP)


def _ungrouped(groups: Array, like: Array) -> Array:
    """Return groups in the shape of another array."""
    flat = groups.reshape(-1)
    return (flat[: like.size] if like.size % GROUP else flat).reshape(like.shape)


def _lattice(negative: Array) -> tuple[Array, Array, Array]:
    """Return the largest step, the code of zero and the smallest step of a positive number, for each group."""
    flag = negative.astype(mx.float32)
    return _UNSIGNED - flag * (_UNSIGNED - _SIGNED), flag * _ZERO, 1 - flag


def _fourth_power(x: Array) -> Array:
    return mx.square(mx.square(x))


def _noise(shape: tuple[int, ...], key: Array) -> Array:
    """Return a random byte for each element, of a hash for four elements: the finalizer of MurmurHash3.

    MLX's generator takes 30 times as long, which is longer than the update of an optimiser.
    """
    words = mx.arange(math.prod(shape) // 4, dtype=mx.uint32)
    return _mixed(_mixed(words ^ key[0]) ^ key[1]).view(mx.uint8).reshape(shape)


def _mixed(words: Array) -> Array:
    words = (words ^ (words >> 16)) * mx.array(0x85EBCA6B, mx.uint32)
    words = (words ^ (words >> 13)) * mx.array(0xC2B2AE35, mx.uint32)
    return words ^ (words >> 16)
