"""Flatten trees for compiled functions: generate one function that lists the arrays, and one that rebuilds the tree.

`mx.compile` walks nested arguments slowly, retraces when a dict arrives with another key order, and does not
distinguish a list from a tuple. So a compiled function receives a flat list. This module generates the source of the
two functions when it first sees a structure. The flattening function checks that a tree has this structure. Key order
is not part of the structure. For example, `{"x": x, "y": y}` and `{"y": y, "x": x}` share one trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from ..core._mlx import mx
from ..core._text import dtype_name
from ..core._types import Array, Tree
from ._paths import leaves

__all__ = ["Flattening", "builder", "describe_nodes", "flattening", "list_arrays"]

T = TypeVar("T")

_CONSTANTS = (type(None), bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Flattening:
    """Hold the two functions for one structure of trees.

    `flatten(*trees)` lists the arrays of the trees, or returns None for trees with another structure. `build(arrays)`
    returns the trees.
    """

    flatten: Callable[..., list[Array] | None]
    build: Callable[[list[Any]], tuple[Tree, ...]]


def flattening(*trees: Tree, names: Sequence[str] = ()) -> Flattening:
    """Generate the functions that flatten and rebuild trees with the structure of these trees.

    The structure is: the types and keys of containers, and the types and values of constants. Shapes and dtypes of
    arrays are not part of it. A leaf that is no array and no constant raises TypeError with its path; `names` are the
    names of the trees in that message.

    >>> pair = flattening({"x": mx.array(1), "y": (mx.array(2), None)})
    >>> [x.item() for x in pair.flatten({"y": (mx.array(4), None), "x": mx.array(3)})]
    [3, 4]
    >>> pair.flatten({"y": [mx.array(4), None], "x": mx.array(3)}) is None
    True
    >>> pair.build([5, 6])
    ({'x': 5, 'y': (6, None)},)
    """
    source = _Source()
    parameters = [f"t{i}" for i in range(len(trees))]
    for parameter, name, tree in zip(parameters, names or parameters, trees, strict=True):
        source.add_flatten(parameter, tree, name)
    all_arrays = source.bind({mx.array}.issuperset)
    listing = f"result = [{', '.join(source.arrays)}]"
    body = "\n  ".join([*source.lines, listing, f"return result if {all_arrays}(map(type, result)) else None"])
    flatten = source.compile(f"def generated({', '.join(parameters)}):\n try:\n  {body}\n except KeyError: return None")
    return Flattening(flatten, builder(trees))


def builder(tree: Tree, *, first: int = 0) -> Callable[[list[Any]], Tree]:
    """Return `build(arrays)`, which puts arrays into new containers with the structure of `tree`.

    The arrays are in tree order. `first` is the index of the first one in the list.

    >>> builder({"a": mx.array(0), "b": [mx.array(0)]})([1, 2])
    {'a': 1, 'b': [2]}
    """
    source = _Source()
    result = source.build_expression(tree, (f"arrays[{i}]" for i in count(first)), "result")
    body = "\n ".join([*source.lines, f"return {result}"])
    return source.compile(f"def generated(arrays):\n {body}")


def list_arrays(tree: Tree) -> list[Array]:
    """List the arrays of a tree in tree order, without its constants."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, mx.array)]


def describe_nodes(trees: Mapping[str, Tree]) -> dict[str, str]:
    """Describe each node by path, with the properties on which a trace depends.

    These are the type and length of a container, the dtype and shape of an array, and the value of a constant.

    >>> describe_nodes({"batch": {"x": mx.zeros((2, 3)), "mode": "mean"}})
    {'batch': 'dict of 2', 'batch.x': 'float32(2, 3)', 'batch.mode': "'mean'"}
    """
    descriptions: dict[str, str] = {}

    def walk(tree: Tree, path: str) -> None:
        if isinstance(tree, (dict, list, tuple)):
            descriptions[path] = f"{type(tree).__name__} of {len(tree)}"
            for key, child in _items(tree):
                walk(child, f"{path}.{key}")
        elif isinstance(tree, mx.array):
            descriptions[path] = f"{dtype_name(tree.dtype)}{tuple(tree.shape)}"
        else:
            descriptions[path] = repr(tree)

    for name, tree in trees.items():
        walk(tree, name)
    return descriptions


class _Source:
    """Generate Python source for one structure. Objects without a literal are bound to names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.arrays: list[str] = []
        self.bindings: dict[str, object] = {}

    def add_flatten(self, expression: str, tree: Tree, path: str) -> None:
        """Add the lines that check the tree at `expression`, and the expressions of its arrays."""
        if isinstance(tree, mx.array):
            self.arrays.append(expression)
        elif isinstance(tree, (dict, list, tuple)):
            self._add_container(expression, tree, path)
        elif isinstance(tree, _CONSTANTS):
            kind, value = self.bind(type(tree)), self.bind(tree)
            same = f"({expression} is {value} or {expression} == {value})"  # NaN is not equal to itself
            self.lines.append(f"if type({expression}) is not {kind} or not {same}: return None")
        else:
            raise _bad_leaf(tree, path)

    def _add_container(self, expression: str, tree: Tree, path: str) -> None:
        variable = f"v{len(self.lines)}"
        self.lines.append(f"{variable} = {expression}")
        mismatch = f"type({variable}) is not {self.type_name(tree)} or len({variable}) != {len(tree)}"
        self.lines.append(f"if {mismatch}: return None")
        for key, child in _items(tree):
            self.add_flatten(f"{variable}[{self.key_literal(key)}]", child, f"{path}.{key}")

    def build_expression(self, tree: Tree, arrays: Iterator[str], path: str) -> str:
        """Write lines that build a tree from the expressions of its arrays; return the expression of the result.

        Each container gets a line and a variable, because Python limits the depth of nested brackets.
        """
        if isinstance(tree, mx.array):
            return next(arrays)
        if isinstance(tree, _CONSTANTS):
            return self.bind(tree)
        if not isinstance(tree, (dict, list, tuple)):
            raise _bad_leaf(tree, path)
        inner = ""
        for key, child in _items(tree):
            label = f"{self.key_literal(key)}: " if isinstance(tree, dict) else ""
            inner += f"{label}{self.build_expression(child, arrays, f'{path}.{key}')}, "
        built = f"{{{inner}}}" if isinstance(tree, dict) else f"[{inner}]"
        built = self._tuple_expression(tree, inner) if isinstance(tree, tuple) else built
        self.lines.append(f"v{len(self.lines)} = {built}")
        return f"v{len(self.lines) - 1}"

    def _tuple_expression(self, tree: Tree, inner: str) -> str:
        if type(tree) is tuple:
            return f"({inner})"
        return f"{self.type_name(tree)}({inner})" if hasattr(tree, "_fields") else f"{self.type_name(tree)}(({inner}))"

    def type_name(self, tree: Tree) -> str:
        kind = type(tree)
        return kind.__name__ if kind in (dict, list, tuple) else self.bind(kind)

    def key_literal(self, key: object) -> str:
        return repr(key) if type(key) in (str, int) else self.bind(key)

    def bind(self, value: object) -> str:
        """Bind an object to a new name of the generated code, and return the name."""
        name = f"k{len(self.bindings)}"
        self.bindings[name] = value
        return name

    def compile(self, text: str) -> Callable[..., Any]:
        """Return the function `generated` of a source text."""
        scope: dict[str, Any] = dict(self.bindings)
        exec(compile(text, "<structure>", "exec"), scope)
        generated: Callable[..., Any] = scope["generated"]
        return generated


def _items(tree: Tree) -> Iterable[tuple[object, Tree]]:
    return tree.items() if isinstance(tree, dict) else enumerate(tree)


def _bad_leaf(leaf: object, path: str) -> TypeError:
    kind = type(leaf).__name__
    return TypeError(f"a tree holds arrays and constants (None, bool, int, float, str); got {kind} at {path!r}")
