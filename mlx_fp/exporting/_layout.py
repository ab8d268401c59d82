"""The layout of trees as JSON, for a file of a function of arrays: a tree without its arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..core._mlx import mx
from ..core._text import dtype_name
from ..core._types import Array, Tree

__all__ = ["Contents", "Kinds", "array_paths", "as_layout", "as_tree", "kinds_of", "nodes", "parse_contents"]

_FORMAT = "mlx_fp function 1"
"""The value of `format` in the metadata of a file."""

_ARRAY = "an array"

Kinds = list[tuple[str, list[int]]]
"""The dtype and the shape of each array."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The metadata of a file: the trees that its function takes and returns."""

    mlx: str
    """The version of MLX that wrote the file."""
    arguments: Any
    """The layout of `[args, kwargs]`."""
    result: Any
    """The layout of the result."""
    inputs: list[str]
    """The path of each array that the function in the file takes, in order."""
    outputs: list[str]
    """The path of each array that it returns, in order."""
    cases: list[Kinds]
    """The dtype and the shape of each input, for each example."""

    def __str__(self) -> str:
        return json.dumps({"format": _FORMAT, **asdict(self)})


def parse_contents(metadata: str) -> Contents | None:
    """Read the metadata of a file; None where they are not of this format."""
    try:
        found = json.loads(metadata)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        return None
    return Contents(**{field.name: found[field.name] for field in fields(Contents)})


def as_layout(tree: Tree) -> Any:
    """Return a tree for JSON, with null in the place of each array.

    >>> as_layout({"x": mx.array(0), "y": [1, (mx.array(0),)]})
    {'dict': [['x', None], ['y', {'list': [{'value': 1}, {'tuple': [None]}]}]]}
    """
    if isinstance(tree, mx.array):
        return None
    if isinstance(tree, dict):
        return {"dict": [[key, as_layout(child)] for key, child in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return {"list" if isinstance(tree, list) else "tuple": [as_layout(child) for child in tree]}
    return {"value": tree}


def as_tree(layout: Any) -> Tree:
    """Return a tree of a layout, with an empty array in the place of each array.

    >>> as_tree({"tuple": [{"value": "mean"}, {"dict": [["x", None]]}]})
    ('mean', {'x': array([], dtype=float32)})
    """
    if layout is None:
        return mx.zeros((0,))
    ((kind, content),) = layout.items()
    if kind == "value":
        return content
    if kind == "dict":
        return {key: as_tree(child) for key, child in content}
    children = [as_tree(child) for child in content]
    return children if kind == "list" else tuple(children)


def nodes(tree: Tree, path: str) -> dict[str, str]:
    """Describe each node of a tree by path, in tree order, without the dtypes and shapes of arrays.

    >>> nodes({"x": mx.array(0), "y": [1]}, "batch")
    {'batch': 'dict of x, y', 'batch.x': 'an array', 'batch.y': 'list of 1', 'batch.y.0': '1'}
    """
    if isinstance(tree, mx.array):
        return {path: _ARRAY}
    if not isinstance(tree, (dict, list, tuple)):
        return {path: repr(tree)}
    children = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    size = ", ".join(sorted(map(str, tree))) if isinstance(tree, dict) else len(tree)
    described = {path: f"{type(tree).__name__} of {size}"}
    for key, child in children:
        described |= nodes(child, f"{path}.{key}")
    return described


def array_paths(tree: Tree, path: str) -> list[str]:
    """Return the path of each array of a tree that is at a path itself, in tree order.

    >>> array_paths({"x": mx.array(0), "y": [1, mx.array(0)]}, "batch")
    ['batch.x', 'batch.y.1']
    """
    return [each for each, kind in nodes(tree, path).items() if kind is _ARRAY]


def kinds_of(arrays: Sequence[Array]) -> Kinds:
    """Return the dtype and the shape of each array.

    >>> kinds_of([mx.zeros((2, 3))])
    [('float32', [2, 3])]
    """
    return [(dtype_name(array.dtype), list(array.shape)) for array in arrays]
