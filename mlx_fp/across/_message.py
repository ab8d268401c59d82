"""The message of a step: one float32 vector, which is summed over the processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from ..core._mlx import mx, utils
from ..core._types import Array, State, Tree
from ..tree._paths import leaves
from ._world import World

__all__ = ["FIGURES", "Message", "exchange"]

FIGURES = 32
"""The largest number of figures of a message: the loss, and the figures that the loss returns."""


_HALF = 2**16
"""The number by which an integer is divided into two."""


class Message(NamedTuple):
    """The contents of a message. On arrival the first four are sums over the processes.

    All messages of a run have the same length, so that a process that fails can answer any message of the others.
    """

    flags: Array
    totals: Mapping[str, Array]
    """The total of each figure: its mean times its weight."""
    weights: Mapping[str, Array]
    arrays: Tree
    """Gradients and buffers, each times the weight of the loss."""
    memories: list[State]
    """The memory of the metrics of this process. On arrival that of each process, by rank."""


def exchange(world: World, message: Message) -> Message:
    """Send a message to all processes, and receive the sum of the messages of all.

    The numbers travel as float32. An integer in a memory travels as two numbers, which is exact below 2^40. A process
    fills its own place among the memories, and adds zeros to the places of the others.

    Args:
        world: The processes.
        message: The message of this process.

    Returns:
        The sums, the same bits on each process.

    Raises:
        ValueError: There are more than 32 figures.

    >>> seen = [{"seen": mx.array(2**24 + 1)}]
    >>> loss, weight = {"loss": mx.array(3.0)}, {"loss": mx.array(2.0)}
    >>> received = exchange(World(), Message(mx.zeros((2,)), loss, weight, {}, seen))
    >>> received.totals, received.memories
    ({'loss': array(3, dtype=float32)}, [{'seen': array(16777217, dtype=int32)}])
    """
    names, own = list(message.weights), [part for leaf in leaves(message.memories) for part in _split(leaf)]
    figures = [_padded(by_name, names) for by_name in (message.totals, message.weights)]
    summed = [message.flags, *figures, *leaves(message.arrays)]
    width = sum(array.size for array in own)
    before, after = width * world.rank, width * (world.size - 1 - world.rank)
    vector = mx.concatenate([*map(_flat, summed), mx.zeros((before,)), *map(_flat, own), mx.zeros((after,))])
    flags, totals, weights, *rest = _cut(world.sum(vector), [*summed, *own * world.size])
    arrays = iter(rest)
    return Message(
        flags,
        {name: totals[i] for i, name in enumerate(names)},
        {name: weights[i] for i, name in enumerate(names)},
        _filled(message.arrays, arrays),
        [_joined(message.memories[0], arrays) for _ in range(world.size)],
    )


def _padded(figures: Mapping[str, Array], names: list[str]) -> Array:
    """Return figures as a vector of the length of all messages."""
    if len(names) > FIGURES:
        raise ValueError(f"a loss has at most {FIGURES - 1} figures across processes; it returns {len(names) - 1}")
    values = [figures[name].astype(mx.float32) for name in names]
    return mx.concatenate([*(value.reshape(1) for value in values), mx.zeros((FIGURES - len(names),))])


def _split(array: Array) -> list[Array]:
    """Return an array of integers as two arrays, of which each is exact in float32; other arrays as they are."""
    if not mx.issubdtype(array.dtype, mx.integer):
        return [array]
    high = array // _HALF
    return [high, array - high * _HALF]


def _joined(tree: Tree, arrays: Iterator[Array]) -> Tree:
    """Return a tree of the same structure with the next arrays, joined where `_split` has split them."""

    def joined(leaf: Array) -> Array:
        first, *rest = (next(arrays) for _ in _split(leaf))
        return first * _HALF + rest[0] if rest else first

    return utils.tree_map(joined, tree)


def _flat(array: Array) -> Array:
    return array.reshape(-1).astype(mx.float32)


def _cut(vector: Array, like: list[Array]) -> list[Array]:
    """Cut a vector into arrays of the shapes and dtypes of others."""
    ends = list(accumulate(array.size for array in like))
    pieces = mx.split(vector, ends[:-1])
    return [piece.reshape(array.shape).astype(array.dtype) for piece, array in zip(pieces, like, strict=True)]


def _filled(tree: Tree, arrays: Iterator[Array]) -> Tree:
    """Return a tree of the same structure with the next arrays."""
    return utils.tree_map(lambda _: next(arrays), tree)
