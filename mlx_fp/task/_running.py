"""The memory of a metric, and the merge of the memories of two parts of the data."""

from __future__ import annotations

from collections.abc import Callable

from ..core._errors import is_count
from ..core._mlx import mx
from ..core._types import Array, Tree
from ._columns import Columns
from ._folds import Metric
from ._mean import Mean

__all__ = [
    "add_counters",
    "as_float",
    "check_count",
    "count_true",
    "empty_mean",
    "exp_of_mean",
    "make_metric",
    "mean_memory",
    "memory_of_mean",
    "merge_means",
    "merged_count",
    "move_mean",
    "nan_if_empty",
    "unknown_unless",
    "zero_counters",
]

_COUNT = mx.uint64
"""The dtype of counters. A counter of 32 bits would overflow after 4 billion tokens."""

_UNKNOWN = 2**63 - 1
"""The value of a counter that is not known, as NaN is for floats. For example, a label that is no class makes it so."""


def make_metric(
    name: str,
    columns: Columns,
    *,
    init: Callable[[], Tree],
    measure: Callable[[Array, Array, Array | None], Tree],
    merge: Callable[[Tree, Tree], Tree],
    value: Callable[[Tree], Array],
    mode: str = "min",
) -> Metric:
    """Make a metric. `measure(output, y, mask)` returns the memory of one batch; `merge` adds it to the memory so far.

    >>> def measure(output, y, mask):
    ...     return {"mean": mx.abs(output - y).mean(), "count": count_true(mx.ones_like(y))}
    >>> fold = {"init": empty_mean, "merge": merge_means, "value": lambda memory: memory["mean"]}
    >>> m = make_metric("error", Columns(), measure=measure, **fold)
    >>> m.value(m.update(m.init(), mx.array([1.0, 3.0]), mx.zeros((2,)), mx.array([0.0, 0.0]))).item()
    2.0
    """

    def update(memory: Tree, output: Tree, /, *places: Array, **named: Array) -> Tree:
        return merge(memory, measure(*columns.pick(name, output, named or places)))

    return Metric(name, init, update, value, mode, merge)


def check_count(message: str, count: object, minimum: int = 1) -> None:
    """Raise ValueError, beginning with `message`, unless `count` is an int of `minimum` or more."""
    if not is_count(count, least=minimum):
        raise ValueError(f"{message}, {minimum} or more; got {count!r}")


def zero_counters(*shape: int) -> Array:
    """Return counters that are 0, in a shape; without a shape a single one."""
    return mx.zeros(shape, _COUNT)


def count_true(counts: Array, axis: int | None = None) -> Array:
    """Count the elements that are True.

    >>> count_true(mx.array([True, False, True]))
    array(2, dtype=uint64)
    """
    return counts.sum(axis=axis).astype(_COUNT)


def add_counters(one: Tree, other: Tree) -> Tree:
    """Add two dicts of counters. A sum with an unknown counter is unknown.

    >>> add_counters({"hits": zero_counters() + 1}, {"hits": zero_counters() + 2})
    {'hits': array(3, dtype=uint64)}
    """
    return {key: unknown_unless(_known(one[key]) & _known(other[key]), one[key] + other[key]) for key in one}


def unknown_unless(known: Array, count: Array) -> Array:
    """Return a counter, or the unknown value where `known` is False."""
    return mx.where(known, count, mx.array(_UNKNOWN, _COUNT))


def as_float(count: Array) -> Array:
    """Return a counter as float32; NaN where it is unknown.

    >>> as_float(unknown_unless(mx.array([True, False]), zero_counters() + 3)).tolist()
    [3.0, nan]
    """
    return mx.where(_known(count), count.astype(mx.float32), mx.nan)


def _known(count: Array) -> Array:
    """Tell whether each counter is known."""
    return count != mx.array(_UNKNOWN, _COUNT)


def empty_mean() -> Tree:
    """Return the memory of a mean before any value."""
    return {"mean": mx.array(0.0), "count": zero_counters()}


def mean_memory(values: Array, counts: Array | None) -> Tree:
    """Return the memory of the mean of values. With `counts`, only values at which it is True count.

    >>> mean_memory(mx.array([1.0, 3.0, 9.0]), mx.array([True, True, False]))
    {'mean': array(2, dtype=float32), 'count': array(2, dtype=uint64)}
    """
    count = zero_counters() + values.size if counts is None else count_true(counts)
    total = values.sum() if counts is None else mx.where(counts, values, 0.0).sum()
    return {"mean": total / mx.maximum(count, 1), "count": count}


def memory_of_mean(mean: Mean) -> Tree:
    """Return the memory of a mean of which the total and the weight, a count, are known.

    >>> memory_of_mean(Mean(mx.array(6.0), mx.array(2.0)))
    {'mean': array(3, dtype=float32), 'count': array(2, dtype=uint64)}
    """
    total, weight = mean
    return {"mean": total / mx.maximum(weight, 1), "count": zero_counters() + weight.astype(_COUNT)}


def exp_of_mean(memory: Tree) -> Array:
    """Return e to the power of a mean, for example the perplexity of a mean cross entropy; NaN where nothing counts."""
    return nan_if_empty(mx.exp(memory["mean"]), memory["count"])


def merge_means(one: Tree, other: Tree) -> Tree:
    """Merge two running means. They stay exact where a running sum in float32 would stop growing.

    >>> one, other = mean_memory(mx.array([1.0]), None), mean_memory(mx.array([3.0, 5.0]), None)
    >>> merge_means(one, other)
    {'mean': array(3, dtype=float32), 'count': array(3, dtype=uint64)}
    """
    count, share = merged_count(one, other)
    return {"mean": move_mean(one["mean"], other["mean"], share), "count": count}


def merged_count(one: Tree, other: Tree) -> tuple[Array, Array]:
    """Return the count of two memories together, and the share of the second in it. It is 0 where both are empty."""
    count = one["count"] + other["count"]
    return count, other["count"].astype(mx.float32) / mx.maximum(count, 1)


def move_mean(old: Array, new: Array, share: Array) -> Array:
    """Move a mean by a share of the distance to another mean.

    An infinite mean stays infinite. It becomes NaN where the other mean is infinite with the opposite sign.
    """
    distance = mx.where(mx.isinf(old), new, new - old)
    return old + mx.where(share > 0, share * distance, 0.0)


def nan_if_empty(value: Array, count: Array) -> Array:
    """Return a value; NaN where the count is 0."""
    return mx.where(count > 0, value, mx.nan)
