"""The memories of metrics, and how the memories of two parts of the data become that of both."""

from __future__ import annotations

from collections.abc import Callable

from ..core._errors import is_count
from ..core._mlx import mx
from ..core._types import Array, Tree
from ._columns import Columns
from ._folds import Metric

__all__ = [
    "added",
    "as_figure",
    "averaged",
    "check_count",
    "mean_of",
    "metric",
    "no_mean",
    "nothing",
    "number",
    "or_nan",
    "or_unknown",
    "shares",
    "towards",
]

_COUNT = mx.uint64
"""The dtype of counters; one of 32 bits would start anew after 4 billion tokens."""

_UNKNOWN = 2**63 - 1
"""The counter of something that cannot be counted, as NaN is among floats."""


def metric(
    name: str,
    columns: Columns,
    *,
    init: Callable[[], Tree],
    measure: Callable[[Array, Array, Array | None], Tree],
    merge: Callable[[Tree, Tree], Tree],
    value: Callable[[Tree], Array],
    mode: str = "min",
) -> Metric:
    """Make a metric of `measure(output, y, mask)`, the memory of one batch, which `merge` adds to that of those before.

    >>> def measure(output, y, mask):
    ...     return {"mean": mx.abs(output - y).mean(), "count": number(mx.ones_like(y))}
    >>> m = metric("off", Columns(), init=no_mean, measure=measure, merge=averaged, value=lambda memory: memory["mean"])
    >>> m.value(m.update(m.init(), mx.array([1.0, 3.0]), mx.zeros((2,)), mx.array([0.0, 0.0]))).item()
    2.0
    """

    def update(memory: Tree, output: Tree, /, *places: Array, **named: Array) -> Tree:
        return merge(memory, measure(*columns.pick(name, output, named or places)))

    return Metric(name, init, update, value, mode, merge)


def check_count(what: str, given: int, least: int = 1) -> None:
    """Raise ValueError unless it is an int of `least` or more."""
    if not is_count(given, least=least):
        raise ValueError(f"{what}, {least} or more; got {given!r}")


def nothing(*shape: int) -> Array:
    """Return counters of a shape, all 0; without a shape, one."""
    return mx.zeros(shape, _COUNT)


def number(counts: Array, axis: int | None = None) -> Array:
    """Count the elements that are True.

    >>> number(mx.array([True, False, True]))
    array(2, dtype=uint64)
    """
    return counts.sum(axis=axis).astype(_COUNT)


def added(one: Tree, other: Tree) -> Tree:
    """Merge two dicts of counters; the sum with an unknown one is unknown.

    >>> added({"hits": nothing() + 1}, {"hits": nothing() + 2})
    {'hits': array(3, dtype=uint64)}
    """
    return {key: or_unknown(_known(one[key]) & _known(other[key]), one[key] + other[key]) for key in one}


def or_unknown(known: Array, count: Array) -> Array:
    """Return a counter, unknown where it is not known."""
    return mx.where(known, count, mx.array(_UNKNOWN, _COUNT))


def as_figure(count: Array) -> Array:
    """Return a counter as float32, NaN where it is unknown.

    >>> as_figure(or_unknown(mx.array([True, False]), nothing() + 3)).tolist()
    [3.0, nan]
    """
    return mx.where(_known(count), count.astype(mx.float32), mx.nan)


def _known(count: Array) -> Array:
    return count != mx.array(_UNKNOWN, _COUNT)


def no_mean() -> Tree:
    """Return the memory of a mean over nothing."""
    return {"mean": mx.array(0.0), "count": nothing()}


def mean_of(values: Array, counts: Array | None) -> Tree:
    """Return the memory of the mean of values, of those that count if `counts` says so.

    >>> mean_of(mx.array([1.0, 3.0, 9.0]), mx.array([True, True, False]))
    {'mean': array(2, dtype=float32), 'count': array(2, dtype=uint64)}
    """
    count = nothing() + values.size if counts is None else number(counts)
    total = values.sum() if counts is None else mx.where(counts, values, 0.0).sum()
    return {"mean": total / mx.maximum(count, 1), "count": count}


def averaged(one: Tree, other: Tree) -> Tree:
    """Merge two running means, which stay exact where a sum in float32 would no longer grow.

    >>> averaged({"mean": mx.array(1.0), "count": nothing() + 1}, {"mean": mx.array(4.0), "count": nothing() + 2})
    {'mean': array(3, dtype=float32), 'count': array(3, dtype=uint64)}
    """
    count, share = shares(one, other)
    return {"mean": towards(one["mean"], other["mean"], share), "count": count}


def shares(one: Tree, other: Tree) -> tuple[Array, Array]:
    """Return the count of two memories together, and the share of the second in it; 0 where both are empty."""
    count = one["count"] + other["count"]
    return count, other["count"].astype(mx.float32) / mx.maximum(count, 1)


def towards(old: Array, new: Array, share: Array) -> Array:
    """Move a mean by a share of the way to another; an infinite mean stays so, unless the other is the opposite."""
    way = mx.where(mx.isinf(old), new, new - old)
    return old + mx.where(share > 0, share * way, 0.0)


def or_nan(value: Array, count: Array) -> Array:
    """Return a value, NaN where nothing counts."""
    return mx.where(count > 0, value, mx.nan)
