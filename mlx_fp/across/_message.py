"""The message of a step: one float32 vector, which is summed over the processes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

from ..core._mlx import mx, utils
from ..core._types import Array, State, Tree
from ..tree._paths import leaves
from ._world import World

__all__ = ["FIGURES", "Figures", "Message", "exchange_figures", "from_vector", "to_vector"]

Figures = Mapping[str, tuple[float, float]]
"""The total and the weight of each figure."""

FIGURES = 32
"""The largest number of figures of a message: the loss, and the figures that the loss returns."""

_EXACT = (mx.bool_, mx.uint8, mx.int8, mx.uint16, mx.int16, mx.float16, mx.bfloat16, mx.float32)
"""The dtypes of which float32 holds each value."""


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


def to_vector(world: World, message: Message) -> Array:
    """Return the vector of a message, which `world.sum` sums over the processes.

    The numbers travel as float32. A process fills its own place among the memories, and adds zeros to the places of the
    others; memories of a wider dtype travel as words of 16 bits, so they arrive with all their bits.

    Args:
        world: The processes.
        message: The message of this process.

    Returns:
        A float32 vector, of one length in all processes.

    Raises:
        ValueError: There are more than 32 figures.

    >>> to_vector(World(), Message(mx.ones((2,)), {}, {}, [mx.ones((3,))], [])).size
    69
    """
    summed, own = _contents(message)
    width = sum(array.size for array in own)
    before, after = width * world.rank, width * (world.size - 1 - world.rank)
    return mx.concatenate([*map(_flat, summed), mx.zeros((before,)), *map(_flat, own), mx.zeros((after,))])


def from_vector(world: World, vector: Array, like: Message) -> Message:
    """Return the message in a vector that `to_vector` has made and `world.sum` has summed.

    Args:
        world: The processes.
        vector: The sum.
        like: A message with the same names, shapes and dtypes. Its numbers are not read.

    Returns:
        The sums, the same bits on each process, and the memories of all.

    >>> sent = Message(mx.zeros((2,)), {"loss": mx.array(3.0)}, {"loss": mx.array(2.0)}, {}, [{"seen": mx.array(3)}])
    >>> received = from_vector(World(), World().sum(to_vector(World(), sent)), sent)
    >>> received.totals, received.memories
    ({'loss': array(3, dtype=float32)}, [{'seen': array(3, dtype=int32)}])
    """
    summed, own = _contents(like)
    flags, totals, weights, *rest = _cut(vector, [*summed, *own * world.size])
    arrays = iter(rest)
    return Message(
        flags,
        {name: totals[i] for i, name in enumerate(like.weights)},
        {name: weights[i] for i, name in enumerate(like.weights)},
        utils.tree_map(lambda _: next(arrays), like.arrays),
        [utils.tree_map(lambda leaf: _of_words(next(arrays), leaf), each) for each in like.memories * world.size],
    )


def exchange_figures(
    world: World, flags: Array, figures: Figures, arrays: Tree, memory: State
) -> tuple[Array, Figures, list[State]]:
    """Exchange figures that are Python numbers, in one message, and wait for it.

    The sum is there before anything reads it, so no operation on a GPU waits for another process.

    Args:
        world: The processes.
        flags: The flags of this process.
        figures: The total and the weight of each figure. All processes have the same names in the same order.
        arrays: Arrays to sum. Their sums are dropped.
        memory: The memory of the metrics.

    Returns:
        `(flags, figures, memories)`: sums over the processes, and the memory of each process, by rank.

    >>> exchange_figures(World(), mx.zeros((1,)), {"loss": (3.0, 2.0)}, {}, {})[1]
    {'loss': (3.0, 2.0)}
    """
    totals, weights = ({name: mx.array(pair[i]) for name, pair in figures.items()} for i in (0, 1))
    message = Message(flags, totals, weights, arrays, [memory])
    vector = world.sum(to_vector(world, message))
    mx.eval(vector)
    got = from_vector(world, vector, message)
    mx.eval(got.flags, got.totals, got.weights, got.memories)
    return got.flags, {name: (float(got.totals[name]), float(got.weights[name])) for name in figures}, got.memories


def _contents(message: Message) -> tuple[list[Array], list[Array]]:
    """Return the arrays of a message that are summed, and the memory of this process as words."""
    names = list(message.weights)
    figures = [_padded(by_name, names) for by_name in (message.totals, message.weights)]
    return [message.flags, *figures, *leaves(message.arrays)], [_as_words(leaf) for leaf in leaves(message.memories)]


def _padded(figures: Mapping[str, Array], names: list[str]) -> Array:
    """Return figures as a vector of the length of all messages."""
    if len(names) > FIGURES:
        raise ValueError(f"a loss has at most {FIGURES - 1} figures across processes; it returns {len(names) - 1}")
    values = [figures[name].astype(mx.float32) for name in names]
    return mx.concatenate([*(value.reshape(1) for value in values), mx.zeros((FIGURES - len(names),))])


def _flat(array: Array) -> Array:
    return array.reshape(-1).astype(mx.float32)


def _as_words(array: Array) -> Array:
    """Return an array of a dtype that float32 holds exactly. The others become their words, `(words,)`."""
    return array if array.dtype in _EXACT else mx.contiguous(array.reshape(-1)).view(mx.uint16)


def _of_words(array: Array, like: Array) -> Array:
    """Return the array of which `_as_words` has made another, with the shape and dtype of `like`."""
    return array if like.dtype in _EXACT else mx.contiguous(array).view(like.dtype).reshape(like.shape)


def _cut(vector: Array, like: list[Array]) -> list[Array]:
    """Cut a vector into arrays of the shapes and dtypes of others."""
    ends = list(accumulate(array.size for array in like))
    pieces = mx.split(vector, ends[:-1])
    return [piece.reshape(array.shape).astype(array.dtype) for piece, array in zip(pieces, like, strict=True)]
