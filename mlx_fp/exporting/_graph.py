"""The graph of a function of arrays, as MLX's own export gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["Graph", "Node", "Value", "graph_of"]

_CUSTOM = "CustomTransforms"
"""The primitive of `mx.custom_function`."""


class Value(NamedTuple):
    """An array in a graph."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype


@dataclass(frozen=True, slots=True)
class Node:
    """An operation in a graph."""

    primitive: str
    arguments: tuple[Any, ...]
    """The options of the operation, in the order of MLX."""
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The operations of a function, in the order in which they are computed."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: tuple[tuple[str, Array], ...]
    nodes: tuple[Node, ...]


def graph_of(fn: Callable[..., Sequence[Array]], arrays: Sequence[Array]) -> Graph:
    """Trace a function of arrays, and return its graph.

    >>> graph = graph_of(lambda x, y: [mx.tanh(x) @ y], [mx.zeros((2, 3)), mx.zeros((3, 4))])
    >>> [node.primitive for node in graph.nodes], graph.outputs[0].shape
    (['Tanh', 'Matmul'], (2, 4))
    """
    events: list[dict[str, Any]] = []
    try:
        mx.export_function(events.append, fn, *arrays)
    except ValueError as error:
        if _CUSTOM not in str(error):
            raise
        raise ValueError(
            "the function contains an mx.custom_function or mx.checkpoint, which MLX cannot write to a file: use plain "
            "operations, and nn.remat in the place of mx.checkpoint"
        ) from error
    found = {event["type"]: event for event in events}
    return Graph(
        _values(found["inputs"]["inputs"]),
        _values(found["outputs"]["outputs"]),
        tuple(found["constants"]["constants"]),
        tuple(_node(event) for event in events if event["type"] == "primitive"),
    )


def _node(event: dict[str, Any]) -> Node:
    return Node(event["name"], tuple(event["arguments"]), _values(event["inputs"]), _values(event["outputs"]))


def _values(values: Sequence[tuple[str, tuple[int, ...], mx.Dtype]]) -> tuple[Value, ...]:
    return tuple(Value(*value) for value in values)
