"""Thin a curve for the page: few points, with the extremes of the whole curve."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

__all__ = ["is_drawn", "thin"]

_LARGEST = 1e150
"""Figures beyond this size are shown as text, because differences of them may overflow."""


def is_drawn(value: float | None) -> bool:
    """Tell whether a figure has a place on an axis.

    >>> is_drawn(1.0), is_drawn(float("nan")), is_drawn(None), is_drawn(1e300)
    (True, False, False, False)
    """
    return value is not None and isfinite(value) and abs(value) < _LARGEST


def thin(values: Sequence[float | None], most: int = 500) -> list[int]:
    """Return the indices of the points that stay, in order.

    The points are divided into equal buckets. Of each bucket the minimum, the maximum and the first point that is not
    finite stay, and so do the first and the last point of the curve.

    Args:
        values: The figures of the curve.
        most: About the largest number of finite points that stay. Default: 500.

    >>> thin([1.0, 5.0, 0.0, 2.0, float("nan"), 3.0, 3.0, 4.0], most=4)
    [0, 1, 2, 4, 5, 7]
    """
    if len(values) <= most:
        return list(range(len(values)))
    buckets = max(most // 2, 1)
    kept = {0, len(values) - 1}
    for number in range(buckets):
        indices = range(len(values) * number // buckets, len(values) * (number + 1) // buckets)
        drawn = [(values[i], i) for i in indices if is_drawn(values[i])]
        if drawn:
            kept |= {min(drawn)[1], max(drawn)[1]}
        if len(drawn) < len(indices):
            kept.add(next(i for i in indices if not is_drawn(values[i])))
    return sorted(kept)
