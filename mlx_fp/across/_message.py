"""One message of a step: sums over the processes, and the parts of each process, in one float32 vector."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from ..core._mlx import mx, utils
from ..core._types import Array, Tree
from ..tree._paths import leaves
from ._world import World

__all__ = ["exchange"]


def exchange(world: World, summed: Tree, each: Tree) -> tuple[Tree, list[Tree]]:
    """Sum a tree of arrays over the processes, and collect another tree of each process, in one message.

    The message is float32: integers are exact below 2^24. A process fills its own place among the collected trees, and
    adds zeros to the places of the others.

    Args:
        world: The processes.
        summed: A tree of arrays to sum.
        each: A tree of arrays of this process, for all processes.

    Returns:
        `(sums, parts)`: the sums, and the tree of each process by rank. The arrays have the dtypes of the given ones.

    >>> exchange(World(), {"a": mx.array([1.0, 2.0])}, [mx.array(3)])
    ({'a': array([1, 2], dtype=float32)}, [[array(3, dtype=int32)]])
    """
    totals, own = leaves(summed), leaves(each)
    width = sum(array.size for array in own)
    before, after = width * world.rank, width * (world.size - 1 - world.rank)
    vector = mx.concatenate([*map(_flat, totals), mx.zeros((before,)), *map(_flat, own), mx.zeros((after,))])
    arrays = iter(_cut(world.sum(vector), [*totals, *own * world.size]))
    return _filled(summed, arrays), [_filled(each, arrays) for _ in range(world.size)]


def _flat(array: Array) -> Array:
    return array.reshape(-1).astype(mx.float32)


def _cut(vector: Array, like: list[Array]) -> list[Array]:
    """Cut a vector into arrays of the shapes and dtypes of others."""
    ends = list(accumulate(array.size for array in like))
    pieces = mx.split(vector, ends[:-1]) if ends else []
    return [piece.reshape(array.shape).astype(array.dtype) for piece, array in zip(pieces, like, strict=True)]


def _filled(tree: Tree, arrays: Iterator[Array]) -> Tree:
    """Return a tree of the same structure with the next arrays."""
    return utils.tree_map(lambda _: next(arrays), tree)
