"""A batch in parts, each computed by itself, and the mean of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from ..core._mlx import mx, utils
from ..core._types import Array, Batch, State, Tree
from ..core.backend import in_use
from ..tree._paths import leaves

__all__ = ["mean", "mean_logs", "run_parts", "split_batch", "split_key"]

T = TypeVar("T")


def split_batch(batch: Batch, count: int) -> tuple[list[Batch], list[float]]:
    """Split a batch by rows into at most `count` parts: the parts, and the share of the rows that each has.

    What is no array, or an array of no axes, is in every part. Where the backend computes nothing side by side, the
    batch stays whole.

    Raises:
        ValueError: the arrays differ in their number of rows, or there is none.

    >>> from dataclasses import replace
    >>> from mlx_fp.core.backend import PLAIN, using
    >>> side_by_side = replace(PLAIN, parallel=lambda calls: [call() for call in calls])
    >>> using(side_by_side)(split_batch)({"x": mx.arange(4), "n": 7}, 2)
    ([{'x': array([0, 1], dtype=int32), 'n': 7}, {'x': array([2, 3], dtype=int32), 'n': 7}], [0.5, 0.5])
    """
    if count == 1 or in_use().parallel is None:
        return [batch], [1.0]
    lengths = {leaf.shape[0] for leaf in leaves(batch) if _has_rows(leaf)}
    if len(lengths) != 1:
        found = f"arrays of {', '.join(map(str, sorted(lengths)))} rows" if lengths else "no array"
        raise ValueError(f"streams={count} divides a batch by rows, the first axis of its arrays, and it has {found}")
    (rows,) = lengths
    count = max(1, min(count, rows))
    bounds = list(pairwise(rows * i // count for i in range(count + 1)))
    return [_rows(batch, *each) for each in bounds], [(end - start) / max(rows, 1) for start, end in bounds]


def split_key(key: Array, count: int) -> list[Array]:
    """Return a random key for each part; the key itself for a single part."""
    return [key] if count == 1 else list(mx.random.split(key, count))


def run_parts(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Call each function and return the results in order, side by side where the backend can.

    >>> run_parts([lambda: 1])
    [1]
    """
    parallel = in_use().parallel
    return [call() for call in calls] if parallel is None or len(calls) == 1 else parallel(calls)


def mean(trees: Sequence[Tree], shares: Sequence[float]) -> Tree:
    """Return the mean of trees of one structure, weighted; exactly any of them where all are equal.

    Arrays of no floating type, which are counters, are those of the first tree.

    >>> mean([{"a": mx.array(1.0)}, {"a": mx.array(4.0)}], [0.75, 0.25])["a"].item()
    1.75
    """
    first, *others = trees
    return utils.tree_map(lambda leaf, *more: _mean(leaf, more, shares[1:]), first, *others)


def mean_logs(logs: Sequence[State], shares: Sequence[float]) -> State:
    """Return the weighted mean of what the loss reports for each part; integers become floats."""
    if len(logs) == 1:
        return logs[0]
    averaged: State = mean([{name: value * 1.0 for name, value in each.items()} for each in logs], shares)
    return averaged


def _has_rows(leaf: Any) -> bool:
    return isinstance(leaf, mx.array) and leaf.ndim > 0


def _rows(batch: Batch, start: int, end: int) -> Batch:
    return utils.tree_map(lambda leaf: leaf[start:end] if _has_rows(leaf) else leaf, batch)


def _mean(first: Any, others: Sequence[Any], shares: Sequence[float]) -> Any:
    floating = isinstance(first, mx.array) and mx.issubdtype(first.dtype, mx.floating)
    if not floating or all(other is first for other in others):
        return first
    return first + sum(share * (other - first) for share, other in zip(shares, others, strict=True))
