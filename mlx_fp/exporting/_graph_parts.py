"""The graph of a function, with the part of the model that each operation of the forward pass belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..core._types import Array
from ..nn._observing import Call, observed_calls
from ..tree._flattening import list_arrays
from ._graph import Graph, Value, graph_of

__all__ = ["graph_with_parts"]


class _Boundary(NamedTuple):
    """A call of a part, with the numbers of its input arrays and output arrays."""

    label: str
    inputs: int
    outputs: int


def graph_with_parts(fn: Callable[..., Sequence[Array]], arrays: Sequence[Array]) -> tuple[Graph, tuple[str, ...]]:
    """Trace a function, and return its graph and the innermost part of each operation; "" outside of all parts.

    The operations of a derivative belong to no part. Where MLX cannot give the arrays of parts, for example within
    `mx.vmap`, no operation has a part.

    >>> from ..core._mlx import mx
    >>> from mlx_fp import nn
    >>> model = nn.sequential(nn.fn(mx.tanh), nn.fn(mx.exp))
    >>> predict = nn.predictor(nn.init(0)(model))(model)
    >>> graph, parts = graph_with_parts(lambda x: [predict(x) + x], [mx.ones((2,))])
    >>> list(zip([node.primitive for node in graph.nodes], parts))
    [('Tanh', 'layers.0 (tanh)'), ('Exp', 'layers.1 (exp)'), ('Add', '')]
    """
    boundaries: list[_Boundary] = []
    own = 0

    def traced(*inputs: Array) -> list[Array]:
        nonlocal own
        results: list[Array] = []
        calls = observed_calls(lambda: results.extend(fn(*inputs)))
        found = [(_label(call), list_arrays(call.inputs), list_arrays(call.outputs)) for call in _ended(calls)]
        own = len(results)
        boundaries[:] = [_Boundary(label, len(before), len(after)) for label, before, after in found]
        return [*results, *(array for _, before, after in found for array in (*before, *after))]

    try:
        graph = graph_of(traced, arrays)
    except (RuntimeError, ValueError):
        plain = graph_of(fn, arrays)
        return plain, ("",) * len(plain.nodes)
    parts = _part_by_node(graph, boundaries, own)
    kept = sorted(_ancestors(graph, _sources(graph), graph.outputs[:own], ()))
    nodes = tuple(graph.nodes[number] for number in kept)
    return replace(graph, outputs=graph.outputs[:own], nodes=nodes), tuple(parts.get(number, "") for number in kept)


def _label(call: Call) -> str:
    return f"{call.path or 'the model'} ({call.name})"


def _ended(calls: Iterable[Call]) -> list[Call]:
    """Sort calls, which are in the order of their beginning, by their end: an inner call before the outer one."""
    ended, opened = list[Call](), list[Call]()
    for call in calls:
        while opened and not _is_within(call, opened[-1]):
            ended.append(opened.pop())
        opened.append(call)
    return [*ended, *reversed(opened)]


def _is_within(call: Call, outer: Call) -> bool:
    return call.path.startswith(f"{outer.path}.") if outer.path else bool(call.path)


def _part_by_node(graph: Graph, boundaries: Sequence[_Boundary], start: int) -> dict[int, str]:
    """Return the part of each operation, by its number. The first call that computes an operation has it."""
    parts, sources = dict[int, str](), _sources(graph)
    for boundary in boundaries:
        middle = start + boundary.inputs
        end = middle + boundary.outputs
        for number in _ancestors(graph, sources, graph.outputs[middle:end], graph.outputs[start:middle]):
            parts.setdefault(number, boundary.label)
        start = end
    return parts


def _sources(graph: Graph) -> dict[str, int]:
    """Return the number of the operation that computes each value."""
    return {value.name: number for number, node in enumerate(graph.nodes) for value in node.outputs}


def _ancestors(graph: Graph, sources: dict[str, int], values: Iterable[Value], known: Iterable[Value]) -> set[int]:
    """Return the numbers of the operations that compute some values from known ones."""
    stops, found = {value.name for value in known}, set[int]()
    waiting = [value.name for value in values]
    while waiting:
        name = waiting.pop()
        number = sources.get(name)
        if name not in stops and number is not None and number not in found:
            found.add(number)
            waiting += [value.name for value in graph.nodes[number].inputs]
    return found
