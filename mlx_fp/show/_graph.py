"""Draw the graph of a function of arrays."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..core._files import write_whole
from ..core._text import dtype_name
from ..core._types import Array, Tree
from ..core._user_path import user_path
from ..exporting._graph import Graph, Value, graph_of
from ..exporting._layout import array_paths
from ..exporting._traced import arguments_of, flat_function, input_paths, require_function

__all__ = ["graph"]

_SECONDS = 120
"""The time after which `dot` is given up, for graphs of very many operations."""


def graph(predict: Callable[..., Tree], example: Tree, path: str | os.PathLike[str] | None = None) -> str | Path:
    """Draw the graph of a function of arrays: an SVG picture where graphviz is installed, else its text in DOT.

    Boxes are the operations of MLX, ellipses the arguments, the results and the constants with more than one element.
    Each arrow has the shape of its array. Shapes are those of the example.

    Args:
        predict: A function of arrays, such as `nn.predictor` makes.
        example: Its arguments: a dict by name, a tuple by position, anything else as the one argument.
        path: The file to write; with the suffix `.dot` it contains DOT. Default: no file.

    Returns:
        Without a path the text, SVG or DOT. With a path the path of the file; the suffix becomes `.dot` where there is
        no `dot` program.

    Raises:
        TypeError: The function is no function of arrays.

    >>> import mlx.core as mx
    >>> "Tanh" in graph(mx.tanh, mx.ones((2, 3)))
    True
    """
    require_function(predict, "graph")
    function = flat_function(predict, arguments_of(example))
    traced = graph_of(function, function.arrays(function.arguments, "example"))
    text = _dot(traced, input_paths(function.arguments), array_paths(function.results[0], "output"))
    target = None if path is None else user_path(path)
    svg = None if target is not None and target.suffix == ".dot" else _svg(text)
    content = text if svg is None else svg
    if target is None:
        return content
    return write_whole(target.with_suffix(".dot") if svg is None else target, content.encode())


def _svg(text: str) -> str | None:
    """Return the picture of a DOT text; None where graphviz is not installed or fails."""
    program = shutil.which("dot")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-Tsvg"], input=text.encode(), capture_output=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode()


def _dot(traced: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """Return a graph as DOT."""
    lines = ["digraph {", 'node [fontname="sans-serif", fontsize=11]', 'edge [fontname="sans-serif", fontsize=9]']
    lines += _ellipses(traced, inputs)
    for i, node in enumerate(traced.nodes):
        lines.append(f"n{i} [shape=box, label={_quoted(node.primitive)}]")
    makers = {value.name: f"n{i}" for i, node in enumerate(traced.nodes) for value in node.outputs}
    shown = makers | {value.name: f"i{i}" for i, value in enumerate(traced.inputs)}
    shown |= {name: f"c{i}" for i, (name, array) in enumerate(traced.constants) if array.size > 1}
    for i, node in enumerate(traced.nodes):
        lines += _arrows(shown, node.inputs, f"n{i}")
    for i, (value, name) in enumerate(zip(traced.outputs, outputs, strict=True)):
        lines.append(f"o{i} [shape=ellipse, style=bold, label={_quoted(name)}]")
        lines += _arrows(shown, [value], f"o{i}")
    return "\n".join([*lines, "}", ""])


def _ellipses(traced: Graph, inputs: Sequence[str]) -> Iterator[str]:
    for i, name in enumerate(inputs):
        yield f"i{i} [shape=ellipse, style=bold, label={_quoted(name)}]"
    for i, (_, array) in enumerate(traced.constants):
        if array.size > 1:
            yield f"c{i} [shape=ellipse, label={_quoted(_graph_kind(array))}]"


def _arrows(shown: dict[str, str], values: Sequence[Value], target: str) -> Iterator[str]:
    """Yield an arrow for each array that has a source in the picture."""
    for value in values:
        if value.name in shown:
            yield f"{shown[value.name]} -> {target} [label={_quoted(_graph_kind(value))}]"


def _graph_kind(value: Value | Array) -> str:
    return f"{dtype_name(value.dtype)} {'×'.join(map(str, value.shape)) or 'scalar'}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
