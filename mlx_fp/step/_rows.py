"""The rows of a batch: count them, and cut a batch into slices of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Tree
from ..tree._paths import flat, leaves

__all__ = [
    "counted_rows",
    "cut_out",
    "cut_rows",
    "describe_rows",
    "example_count",
    "resize_rows",
    "row_at",
    "row_count",
    "split_key",
]


def row_count(batch: Batch) -> int | None:
    """Return the number of rows of a batch: the length of the first axis of its arrays. None where they differ.

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
    """Count the examples of a batch, which are its rows.

    Where its arrays differ in their number of rows, the number that most of them have counts.

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


def describe_rows(batch: Batch) -> str:
    """Return the paths and shapes of the arrays of a batch that have rows, for a message.

    >>> describe_rows({"w": mx.ones((4,)), "x": mx.zeros((32, 8))})
    'w (4,), x (32, 8)'
    """
    named = flat(batch) if isinstance(batch, (dict, list, tuple)) else {"the batch": batch}
    shapes = [f"{path} {tuple(leaf.shape)}" for path, leaf in named.items() if _has_rows(leaf)]
    return ", ".join(shapes) or "no array with rows"


def counted_rows(batch: Batch, purpose: str) -> int:
    """Return the number of rows of a batch. `purpose` says in the message of an error who needs rows, and why.

    Raises:
        ValueError: The arrays differ in their number of rows, or none has rows.
    """
    rows = row_count(batch)
    if rows is None or not _lengths(batch):
        shapes = describe_rows(batch)
        raise ValueError(f"{purpose}, the first axis that its arrays share; this batch has {shapes}")
    return rows


def row_at(batch: Batch, index: Array) -> Batch:
    """Return the batch of one row; `index` has the shape `(1,)`.

    >>> row_at({"x": mx.arange(5), "n": 7}, mx.array([2]))
    {'x': array([2], dtype=int32), 'n': 7}
    """
    return utils.tree_map(lambda leaf: leaf[index] if _has_rows(leaf) else leaf, batch)


def cut_rows(batch: Batch, count: int, option: str) -> list[Batch]:
    """Cut a batch into at most `count` slices of two rows or more. An error names `option`.

    Each slice has all leaves without rows. MLX's batch norm raises an error for a slice of one row.

    Raises:
        ValueError: The arrays differ in their number of rows, or none has rows.

    >>> cut_rows({"x": mx.arange(5), "n": 7}, 4, "parts")
    [{'x': array([0, 1], dtype=int32), 'n': 7}, {'x': array([2, 3, 4], dtype=int32), 'n': 7}]
    """
    rows = counted_rows(batch, f"{option}={count} cuts a batch by rows")
    count = max(1, min(count, rows // 2))
    bounds = [rows * i // count for i in range(count + 1)]
    return [batch] if count == 1 else [_slice(batch, start, end) for start, end in pairwise(bounds)]


def cut_out(batch: Batch, rows: slice) -> tuple[Batch, int]:
    """Cut rows out of a batch. Return them, and the number of rows of the whole batch.

    Raises:
        ValueError: The arrays differ in their number of rows, or none has rows.

    >>> cut_out({"x": mx.arange(5), "n": 7}, slice(1, None, 2))
    ({'x': array([1, 3], dtype=int32), 'n': 7}, 5)
    """
    count = counted_rows(batch, "across divides each batch by rows")
    return utils.tree_map(lambda leaf: leaf[rows] if _has_rows(leaf) else leaf, batch), count


def resize_rows(batch: Batch, rows: int) -> Batch:
    """Return a batch with another number of rows: the first rows, or the rows again and again.

    Arrays whose first axis has another length than the rows, and leaves that are no arrays, stay.

    >>> resize_rows({"x": mx.arange(3), "weights": mx.ones((2,)), "n": 7, "y": mx.arange(3)}, 5)["x"].tolist()
    [0, 1, 2, 0, 1]
    """
    count = example_count(batch)
    taken = mx.arange(rows) % count

    def resized(leaf: Tree) -> Tree:
        return mx.array(leaf)[taken] if _has_rows(leaf) and leaf.shape[0] == count else leaf

    return utils.tree_map(resized, batch)


def split_key(key: Array, count: int) -> list[Array]:
    """Return a random key for each slice. For a single slice it is the key itself."""
    return [key] if count == 1 else list(mx.random.split(key, count))


def _lengths(batch: Batch) -> list[int]:
    """Return the length of the first axis of each array that has one."""
    parts: Iterable[Tree] = (
        batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (tuple, list)) else (batch,)
    )
    lengths = []
    for part in parts:
        if isinstance(part, (dict, list, tuple)):
            lengths += [leaf.shape[0] for leaf in leaves(part) if _has_rows(leaf)]
        elif getattr(part, "shape", ()):
            lengths.append(part.shape[0])
    return lengths


def _has_rows(leaf: object) -> bool:
    return bool(getattr(leaf, "shape", ()))


def _slice(batch: Batch, start: int, end: int) -> Batch:
    return utils.tree_map(lambda leaf: leaf[start:end] if _has_rows(leaf) else leaf, batch)
