"""The rows of a batch: their number, and the batch cut into slices of rows."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from ..core._mlx import mx, utils
from ..core._types import Array, Batch
from ..tree._paths import flat, leaves

__all__ = ["cut_rows", "described_rows", "example_count", "row_count", "split_key"]


def row_count(batch: Batch) -> int | None:
    """Return the number of rows of a batch: the first axis that its arrays share, None where they differ.

    Arrays without axes, and leaves that are no arrays, have no rows. A batch without rows counts as one row.

    >>> row_count({"rate": mx.array(0.5), "x": mx.zeros((32, 8)), "y": mx.zeros((32,))})
    32
    >>> row_count({"class_weights": mx.ones((4,)), "x": mx.zeros((32, 8))}) is None
    True
    """
    lengths = _lengths(batch)
    if not lengths:
        return 1
    first = lengths[0]
    return first if lengths.count(first) == len(lengths) else None


def example_count(batch: Batch) -> int:
    """Count the examples of a batch: its rows; where its arrays differ, the first axis that most of them have.

    >>> example_count({"class_weights": mx.ones((4,)), "x": mx.zeros((32, 8)), "y": mx.zeros((32,))})
    32
    """
    lengths = _lengths(batch)
    if not lengths:
        return 1
    first = lengths[0]
    if lengths.count(first) == len(lengths):
        return first
    counts = Counter(lengths)
    return max(counts, key=lambda length: (counts[length], length))


def described_rows(batch: Batch) -> str:
    """Return the shapes of the arrays in a batch that have rows, for an error.

    >>> described_rows({"w": mx.ones((4,)), "x": mx.zeros((32, 8))})
    'w (4,), x (32, 8)'
    """
    named = flat(batch) if isinstance(batch, (dict, list, tuple)) else {"the batch": batch}
    shapes = [f"{path} {tuple(leaf.shape)}" for path, leaf in named.items() if _has_rows(leaf)]
    return ", ".join(shapes) or "no array with rows"


def cut_rows(batch: Batch, count: int, option: str) -> list[Batch]:
    """Cut a batch into at most `count` slices of rows, of two rows or more each; `option` is named in an error.

    Leaves without rows are in every slice. A slice of one row would be an error in MLX's batch norm.

    Raises:
        ValueError: the arrays differ in their number of rows, or none has rows.

    >>> cut_rows({"x": mx.arange(5), "n": 7}, 4, "parts")
    [{'x': array([0, 1], dtype=int32), 'n': 7}, {'x': array([2, 3, 4], dtype=int32), 'n': 7}]
    """
    rows = row_count(batch)
    if rows is None or not _lengths(batch):
        raise ValueError(
            f"{option}={count} cuts a batch by rows, the first axis that its arrays share; this batch has "
            f"{described_rows(batch)}"
        )
    count = max(1, min(count, rows // 2))
    bounds = [rows * i // count for i in range(count + 1)]
    return [batch] if count == 1 else [_slice(batch, *each) for each in pairwise(bounds)]


def split_key(key: Array, count: int) -> list[Array]:
    """Return a random key for each slice; the key itself for a single one."""
    return [key] if count == 1 else list(mx.random.split(key, count))


def _lengths(batch: Batch) -> list[int]:
    parts: Any = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (tuple, list)) else (batch,)
    lengths = []
    for part in parts:
        if isinstance(part, (dict, list, tuple)):
            lengths += [leaf.shape[0] for leaf in leaves(part) if _has_rows(leaf)]
        elif getattr(part, "shape", ()):
            lengths.append(part.shape[0])
    return lengths


def _has_rows(leaf: Any) -> bool:
    return bool(getattr(leaf, "shape", ()))


def _slice(batch: Batch, start: int, end: int) -> Batch:
    return utils.tree_map(lambda leaf: leaf[start:end] if _has_rows(leaf) else leaf, batch)
