"""Compute a graph one operation after another, and measure the time of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from ..core._mlx import mx
from ..core._types import Array
from ._graph import Graph, Node
from ._replay_operations import REPLAYS

__all__ = ["Timed", "replayed", "seconds_of"]

_COPY_BYTES, _COPIES = 1 << 22, 16
"""The bytes of results up to which an operation is computed several times at once, and the number of times at most."""

_ERRORS = (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError)
"""The errors of a call of MLX whose arguments do not fit."""


class Timed(NamedTuple):
    """An operation of a graph, its outputs, and its time; None where it could not be computed alone."""

    node: Node
    seconds: float | None
    outputs: tuple[Array, ...]


def replayed(graph: Graph, inputs: Sequence[Array], repeats: int) -> Iterator[Timed]:
    """Compute the operations of a graph in order; an array is dropped after its last use.

    An operation that cannot be computed alone has outputs of zeros.

    >>> from ._graph import graph_of
    >>> xs = [mx.ones((2, 3)), mx.ones((3, 4))]
    >>> graph = graph_of(lambda x, y: [mx.tanh(x) @ y], xs)
    >>> [(each.node.primitive, each.seconds > 0) for each in replayed(graph, xs, 3)]
    [('Tanh', True), ('Matmul', True)]
    """
    values = dict(graph.constants) | {value.name: x for value, x in zip(graph.inputs, inputs, strict=True)}
    last = {value.name: number for number, node in enumerate(graph.nodes) for value in node.inputs}
    for number, node in enumerate(graph.nodes):
        arrays = [values[value.name] for value in node.inputs]
        timed = _timed(node, arrays, repeats)
        values |= {value.name: x for value, x in zip(node.outputs, timed.outputs, strict=True)}
        for name in {value.name for value in (*node.inputs, *node.outputs)}:
            if last.get(name, -1) <= number:
                values.pop(name, None)
        yield timed


def seconds_of(compute: Callable[[Any], object], repeats: int, build: Callable[[], Any] = lambda: None) -> float:
    """Return the median time of a computation in seconds, after one that is not counted.

    Args:
        compute: The computation, which takes the result of `build`.
        repeats: The number of times.
        build: A function whose time is not counted, for example one that makes arrays that are not computed yet.
    """
    return median([_seconds(compute, build) for _ in range(repeats + 1)][1:])


def _timed(node: Node, arrays: Sequence[Array], repeats: int) -> Timed:
    try:
        outputs = _computed(node, arrays)
        mx.eval(outputs)
    except _ERRORS:
        return Timed(node, None, tuple(mx.zeros(value.shape, value.dtype) for value in node.outputs))
    copies = max(1, min(_COPIES, _COPY_BYTES // max(1, sum(x.nbytes for x in outputs))))
    seconds = seconds_of(mx.eval, repeats, partial(_copies, node, arrays, copies)) / copies
    return Timed(node, seconds, outputs)


def _computed(node: Node, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Compute a node; raise ValueError where the outputs have other shapes or dtypes than those of the graph."""
    result = REPLAYS[node.primitive](node, arrays)
    outputs = (result,) if isinstance(result, mx.array) else tuple(result)
    if [(x.shape, x.dtype) for x in outputs] != [(value.shape, value.dtype) for value in node.outputs]:
        raise ValueError(f"{node.primitive} has outputs of another kind")
    return outputs


def _copies(node: Node, arrays: Sequence[Array], copies: int) -> list[object]:
    return [REPLAYS[node.primitive](node, arrays) for _ in range(copies)]


def _seconds(compute: Callable[[Any], object], build: Callable[[], Any]) -> float:
    built = build()
    start = time.perf_counter()
    compute(built)
    return time.perf_counter() - start
