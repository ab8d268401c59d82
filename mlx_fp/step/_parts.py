"""A batch in parts that are computed side by side, each on a stream of its own.

MLX computes all but matrix products on one core of a CPU. A second stream is a second core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from ..core._mlx import mx, on_cpu, utils
from ..core._types import Array, Batch, State, Tree
from ..cpu._blas import single
from ..tree._paths import leaves

__all__ = ["abreast", "divided", "keys", "mean", "reported"]

T = TypeVar("T")

_of_thread = threading.local()  # for MLX's streams belong to the thread that made them


def divided(batch: Batch, count: int) -> tuple[list[Batch], list[float]]:
    """Divide a batch by rows into at most `count` parts: the parts, and the share of the rows that each has.

    What is no array, or an array of no axes, is in every part. On a GPU the batch stays whole. ValueError for arrays
    that differ in length.

    >>> divided({"x": mx.arange(4), "n": 7}, 2)
    ([{'x': array([0, 1], dtype=int32), 'n': 7}, {'x': array([2, 3], dtype=int32), 'n': 7}], [0.5, 0.5])
    """
    if count == 1 or not on_cpu():
        return [batch], [1.0]
    lengths = {leaf.shape[0] for leaf in leaves(batch) if _has_rows(leaf)}
    if len(lengths) != 1:
        told = f"arrays of {', '.join(map(str, sorted(lengths)))} rows" if lengths else "no array"
        raise ValueError(f"streams={count} divides a batch by rows, the first axis of its arrays, and it has {told}")
    (rows,) = lengths
    count = max(1, min(count, rows))
    bounds = list(pairwise(rows * i // count for i in range(count + 1)))
    return [_rows(batch, *each) for each in bounds], [(end - start) / max(rows, 1) for start, end in bounds]


def keys(key: Array, count: int) -> list[Array]:
    """Return a random key for each part: the one at hand if there is but one."""
    return [key] if count == 1 else list(mx.random.split(key, count))


def abreast(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each function returns, the arrays being computed side by side, on CPU streams of this thread.

    More than one leave MLX's BLAS a single thread, for its products would wait for each other.
    """
    if len(calls) == 1:
        return [calls[0]()]
    single()
    others = _of_thread.__dict__.setdefault("streams", [])
    others += [mx.new_stream(mx.Device(mx.cpu)) for _ in range(len(calls) - 1 - len(others))]
    results = [calls[0]()]
    for stream, call in zip(others, calls[1:], strict=False):
        with mx.stream(stream):
            results.append(call())
    return results


def mean(trees: Sequence[Tree], shares: Sequence[float]) -> Tree:
    """Return the mean of trees of one structure, weighted; exactly any of them where all are equal.

    Arrays of no floating type, which are counters, are those of the first.

    >>> mean([{"a": mx.array(1.0)}, {"a": mx.array(4.0)}], [0.75, 0.25])["a"].item()
    1.75
    """
    first, *others = trees
    return utils.tree_map(lambda leaf, *more: _mean(leaf, more, shares[1:]), first, *others)


def reported(logs: Sequence[State], shares: Sequence[float]) -> State:
    """Return the mean of what the parts report, weighted; of integers too, as floats."""
    if len(logs) == 1:
        return logs[0]
    averaged: State = mean([{name: value * 1.0 for name, value in one.items()} for one in logs], shares)
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
