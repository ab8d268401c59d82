"""What a tree is made of, as JSON, and its arrays by name: any tree comes back as it was.

`mlx.utils.tree_unflatten` would turn tuples into lists, and drop empty containers, digit keys and keys with a dot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ..core._types import Array, Tree
from ._tensors import Tensor

__all__ = ["Packed", "rebuild", "take_down"]


_USUAL = (int, str, bool, type(None))


class Packed:
    """A leaf that a file keeps as bytes of a kind, beside its arrays."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def tensor(self) -> Tensor:
        """Return the bytes."""
        raise NotImplementedError


def take_down(tree: Tree, arrays: dict[str, Any], prefix: str = "") -> Any:
    """Describe a tree, and put its arrays and `Packed` leaves under names of their own: their paths, where possible.

    Further leaves are numbers, texts and None. TypeError, naming the place, for anything else.

    >>> arrays = {}
    >>> take_down({"a": (mx.array(1), 2.5), "b": {}}, arrays)
    {'dict': [['a', {'tuple': [{'array': 'a.0'}, {'value': 2.5}]}], ['b', {'dict': []}]]}
    >>> list(arrays)
    ['a.0']
    """
    return _describe(tree, prefix, arrays)


def rebuild(described: Any, array: Callable[[str], Array], packed: Callable[[str, str], Any] | None = None) -> Tree:
    """Rebuild a tree of its description, of arrays by name, and of packed leaves by kind and name.

    ValueError for a description that is none.

    >>> rebuild({"dict": [["a", {"tuple": [{"array": "a.0"}, {"value": 2.5}]}]]}, {"a.0": 1}.__getitem__)
    {'a': (1, 2.5)}
    """
    if not isinstance(described, dict) or len(described) != 1:
        raise ValueError("its manifest is none")
    ((kind, content),) = described.items()
    if kind == "array" and isinstance(content, str):
        return array(content)
    if kind == "number" and content in ("nan", "inf", "-inf"):
        return float(content)
    if kind == "value" and (content is None or isinstance(content, (bool, int, float, str))):
        return content
    if kind in ("list", "tuple") and isinstance(content, list):
        made = [rebuild(one, array, packed) for one in content]
        return made if kind == "list" else tuple(made)
    if kind == "dict" and isinstance(content, list) and all(map(_is_pair, content)):
        return {key: rebuild(one, array, packed) for key, one in content}
    if packed is not None and isinstance(content, str):
        return packed(kind, content)
    raise ValueError(f"its manifest has a {kind!r} that is none")


def _describe(tree: Tree, path: str, arrays: dict[str, Any]) -> Any:
    if type(tree) in _USUAL or (type(tree) is float and math.isfinite(tree)):  # first, for rows have many of them
        return {"value": tree}
    if isinstance(tree, Mapping):
        return {"dict": [[_key(key, path), _describe(one, _join(path, key), arrays)] for key, one in tree.items()]}
    if type(tree) in (list, tuple):
        parts = [_describe(one, _join(path, i), arrays) for i, one in enumerate(tree)]
        return {type(tree).__name__: parts}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"number": str(tree)}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"value": tree}
    from ..core._mlx import mx

    if not isinstance(tree, (mx.array, Packed)):
        raise TypeError(f"{path or 'the tree'} is {type(tree).__name__}; a checkpoint holds arrays, numbers and texts")
    name = _name(path, arrays)
    arrays[name] = tree
    return {tree.kind if isinstance(tree, Packed) else "array": name}


def _key(key: Any, path: str) -> str | int:
    if type(key) not in (str, int):
        raise TypeError(f"a key of {path or 'the tree'} is {key!r}; keys are texts or integers")
    checked: str | int = key
    return checked


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _name(path: str, taken: Mapping[str, Any]) -> str:
    """Return a name for the array at a path: the path, unless a file could not hold it or another array has it."""
    if path.isprintable() and 0 < len(path) < 256 and path != "__metadata__" and path not in taken:
        return path
    return f"tensor.{len(taken)}" if f"tensor.{len(taken)}" not in taken else f"tensor.{len(taken)}.{path!r:.64}"


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (str, int)
