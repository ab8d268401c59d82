"""What a tree looks like, as two functions: one takes such a tree apart, one puts it together.

`mx.compile` walks nested arguments slowly, retraces when a dict comes in another key order, and does not tell a
list from a tuple. So a compiled function is given a flat list. The functions that make and read that list are
written for the structure at hand, once, when it is first seen; each checks that what it is given has that
structure, and key order is no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from ..core._errors import refuse_mask
from ..core._mlx import mx, utils
from ..core._types import Tree
from ._paths import leaves

__all__ = ["Structure", "arrays", "as_arrays", "builder", "describe", "structure"]

_CONSTANTS = (type(None), bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Structure:
    """`flatten(*trees)` lists the arrays of trees of this structure, or gives None when they have another one;
    `build(arrays)` gives the trees back.
    """

    flatten: Callable[..., list[Any] | None]
    build: Callable[[list[Any]], tuple[Tree, ...]]


def structure(*trees: Tree, names: Sequence[str] = ()) -> Structure:
    """Describe the structure of trees by the functions that take such trees apart and put them together.

    Containers count with their types and keys, constants with their types and values; arrays with nothing.
    Raise TypeError, naming the path, for a leaf that is no array and no constant; `names` are what it calls the trees.

    >>> known = structure({"x": mx.array(1), "y": (mx.array(2), None)})
    >>> [x.item() for x in known.flatten({"y": (mx.array(4), None), "x": mx.array(3)})]
    [3, 4]
    >>> known.flatten({"y": [mx.array(4), None], "x": mx.array(3)}) is None
    True
    >>> known.build([5, 6])
    ({'x': 5, 'y': (6, None)},)
    """
    source = _Source()
    given = [f"t{i}" for i in range(len(trees))]
    for at, name, tree in zip(given, names or given, trees, strict=True):
        source.take_apart(at, tree, name)
    all_arrays = source.keep({mx.array}.issuperset)
    found = f"found = [{', '.join(source.arrays)}]"
    body = "\n  ".join([*source.lines, found, f"return found if {all_arrays}(map(type, found)) else None"])
    flatten = source.function(f"def made({', '.join(given)}):\n try:\n  {body}\n except KeyError: return None")
    return Structure(flatten, builder(trees))


def builder(tree: Tree, *, first: int = 0) -> Callable[[list[Any]], Tree]:
    """Return `build(arrays)`: arrays, in tree order from place `first`, in fresh containers like those of `tree`.

    >>> builder({"a": mx.array(0), "b": [mx.array(0)]})([1, 2])
    {'a': 1, 'b': [2]}
    """
    source = _Source()
    result = source.put_together(tree, (f"arrays[{i}]" for i in count(first)), "result")
    body = "\n ".join([*source.lines, f"return {result}"])
    return source.function(f"def made(arrays):\n {body}")


def arrays(tree: Tree) -> list[Any]:
    """List the arrays of a tree, in tree order, constants left out."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, mx.array)]


def as_arrays(tree: Tree) -> Tree:
    """Take the numpy arrays of a tree as mlx arrays; everything else stays."""
    return utils.tree_map(_array, tree)


def describe(trees: Mapping[str, Tree]) -> dict[str, str]:
    """Say of every node, by path, what a trace depends on: container, shape and dtype, or constant.

    >>> describe({"batch": {"x": mx.zeros((2, 3)), "mode": "mean"}})
    {'batch': 'dict of 2', 'batch.x': 'float32(2, 3)', 'batch.mode': "'mean'"}
    """
    found: dict[str, str] = {}

    def walk(tree: Tree, path: str) -> None:
        if isinstance(tree, (dict, list, tuple)):
            found[path] = f"{type(tree).__name__} of {len(tree)}"
            for key, child in _items(tree):
                walk(child, f"{path}.{key}")
        elif isinstance(tree, mx.array):
            found[path] = f"{str(tree.dtype).removeprefix('mlx.core.')}{tuple(tree.shape)}"
        else:
            found[path] = repr(tree)

    for name, tree in trees.items():
        walk(tree, name)
    return found


class _Source:
    """Lines of Python for one structure; what cannot be spelled is kept aside and named."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.arrays: list[str] = []
        self.kept: dict[str, Any] = {}

    def take_apart(self, at: str, tree: Tree, path: str) -> None:
        if isinstance(tree, mx.array):
            self.arrays.append(at)
        elif isinstance(tree, (dict, list, tuple)):
            self._take_container(at, tree, path)
        elif isinstance(tree, _CONSTANTS):
            kind, value = self.keep(type(tree)), self.keep(tree)
            same = f"({at} is {value} or {at} == {value})"  # a NaN is not equal to itself
            self.lines.append(f"if type({at}) is not {kind} or not {same}: return None")
        else:
            raise _bad_leaf(tree, path)

    def _take_container(self, at: str, tree: Tree, path: str) -> None:
        held = f"v{len(self.lines)}"
        self.lines.append(f"{held} = {at}")
        self.lines.append(f"if type({held}) is not {self.kind(tree)} or len({held}) != {len(tree)}: return None")
        for key, child in _items(tree):
            self.take_apart(f"{held}[{self.spell(key)}]", child, f"{path}.{key}")

    def put_together(self, tree: Tree, places: Iterator[str], path: str) -> str:
        """Write lines that put a tree together; return the name of the result. Nested brackets have a limit."""
        if isinstance(tree, mx.array):
            return next(places)
        if isinstance(tree, _CONSTANTS):
            return self.keep(tree)
        if not isinstance(tree, (dict, list, tuple)):
            raise _bad_leaf(tree, path)
        inner = ""
        for key, child in _items(tree):
            spelled = f"{self.spell(key)}: " if isinstance(tree, dict) else ""
            inner += f"{spelled}{self.put_together(child, places, f'{path}.{key}')}, "
        made = f"{{{inner}}}" if isinstance(tree, dict) else f"[{inner}]"
        made = self._make_tuple(tree, inner) if isinstance(tree, tuple) else made
        self.lines.append(f"v{len(self.lines)} = {made}")
        return f"v{len(self.lines) - 1}"

    def _make_tuple(self, tree: Tree, inner: str) -> str:
        if type(tree) is tuple:
            return f"({inner})"
        return f"{self.kind(tree)}({inner})" if hasattr(tree, "_fields") else f"{self.kind(tree)}(({inner}))"

    def kind(self, tree: Tree) -> str:
        kind = type(tree)
        return kind.__name__ if kind in (dict, list, tuple) else self.keep(kind)

    def spell(self, key: Any) -> str:
        return repr(key) if type(key) in (str, int) else self.keep(key)

    def keep(self, value: Any) -> str:
        name = f"k{len(self.kept)}"
        self.kept[name] = value
        return name

    def function(self, text: str) -> Callable[..., Any]:
        scope = dict(self.kept)
        exec(compile(text, "<structure>", "exec"), scope)
        return scope["made"]  # type: ignore[no-any-return]


def _items(tree: Tree) -> Any:
    return tree.items() if isinstance(tree, dict) else enumerate(tree)


def _bad_leaf(leaf: Any, path: str) -> TypeError:
    kind = type(leaf).__name__
    return TypeError(f"a tree holds arrays and constants (None, bool, int, float, str); got {kind} at {path!r}")


def _array(leaf: Any) -> Any:
    if isinstance(leaf, mx.array) or not hasattr(leaf, "__array__"):
        return leaf
    refuse_mask("a batch or input", leaf, "holds")
    try:
        return _converted(leaf)
    except (RuntimeError, ValueError, TypeError) as error:
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise TypeError(f"MLX has no arrays of {kind}, of which a batch or input holds one") from error


def _converted(leaf: Any) -> Any:
    try:
        return mx.array(leaf)
    except (RuntimeError, ValueError):  # strides below 0, or bytes in another order than the machine's
        array = leaf.__array__()
        return mx.array(array.astype(array.dtype.newbyteorder("="), order="C"))
