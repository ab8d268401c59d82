"""Describe a tree as JSON with its arrays by name, and restore exactly the same tree.

`mlx.utils.tree_unflatten` would turn tuples into lists. It would also lose empty containers, keys of digits, and keys
with a dot. For example, it turns `{"0": x}` into `[x]`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from ..core._tensors import Tensor
from ..core._types import Array, Tree

__all__ = ["Packed", "describe_tree", "restore_tree"]

Description: TypeAlias = dict[str, Any]
"""One entry `{kind: content}` of JSON values. For example, `{"tuple": [{"array": "a.0"}, {"value": 2.5}]}`."""

_FREQUENT_TYPES = (int, str, bool, type(None))


class Packed(ABC):
    """A leaf that a file stores as bytes; `kind` names their encoding."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    @abstractmethod
    def tensor(self) -> Tensor:
        """Return the bytes as a tensor."""


def describe_tree(tree: Tree, arrays: dict[str, Array | Packed], prefix: str = "") -> Description:
    """Describe a tree as JSON, and add its arrays and `Packed` leaves to `arrays` under unique names.

    The name is the path where that is possible. All other leaves must be numbers, texts or None. Any other value raises
    TypeError with its path.

    >>> arrays = {}
    >>> describe_tree({"a": (mx.array(1), 2.5), "b": {}}, arrays)
    {'dict': [['a', {'tuple': [{'array': 'a.0'}, {'value': 2.5}]}], ['b', {'dict': []}]]}
    >>> list(arrays)
    ['a.0']
    """
    return _describe(tree, prefix, arrays)


def restore_tree(
    description: object, array: Callable[[str], Array], packed: Callable[[str, str], Tree] | None = None
) -> Tree:
    """Restore a tree from its description.

    `array(name)` returns an array, and `packed(kind, name)` returns a packed leaf. An invalid description raises
    ValueError.

    >>> restore_tree({"dict": [["a", {"tuple": [{"array": "a.0"}, {"value": 2.5}]}]]}, {"a.0": 1}.__getitem__)
    {'a': (1, 2.5)}
    """
    if not isinstance(description, dict) or len(description) != 1:
        raise ValueError("its manifest is invalid")
    ((kind, content),) = description.items()
    if kind == "array" and isinstance(content, str):
        return array(content)
    if kind == "number" and content in ("nan", "inf", "-inf"):
        return float(content)
    if kind == "value" and (content is None or isinstance(content, (bool, int, float, str))):
        return content
    if kind in ("list", "tuple") and isinstance(content, list):
        items = [restore_tree(item, array, packed) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict" and isinstance(content, list) and all(map(_is_pair, content)):
        return {key: restore_tree(item, array, packed) for key, item in content}
    if packed is not None and isinstance(content, str):
        return packed(kind, content)
    raise ValueError(f"its manifest has an invalid {kind!r}")


def _describe(tree: Tree, path: str, arrays: dict[str, Array | Packed]) -> Description:
    if type(tree) in _FREQUENT_TYPES or (
        type(tree) is float and math.isfinite(tree)
    ):  # the first check is the fastest, and rows have many such values
        return {"value": tree}
    if isinstance(tree, Mapping):
        return {
            "dict": [[_key(key, path), _describe(item, _child_path(path, key), arrays)] for key, item in tree.items()]
        }
    if type(tree) in (list, tuple):
        items = [_describe(item, _child_path(path, i), arrays) for i, item in enumerate(tree)]
        return {type(tree).__name__: items}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"number": str(tree)}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"value": tree}
    from ..core._mlx import mx

    if not isinstance(tree, (mx.array, Packed)):
        raise TypeError(f"{path or 'the tree'} is {type(tree).__name__}; a checkpoint holds arrays, numbers and texts")
    name = _array_name(path, arrays)
    arrays[name] = tree
    return {tree.kind if isinstance(tree, Packed) else "array": name}


def _key(key: object, path: str) -> str | int:
    """Return a key of a dict if it is a text or an int, and raise TypeError otherwise."""
    if type(key) is str or type(key) is int:
        return key
    raise TypeError(f"a key of {path or 'the tree'} is {key!r}; keys are texts or integers")


def _child_path(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _array_name(path: str, taken: Mapping[str, object]) -> str:
    """Return the path as the name of an array, or a number if a file cannot hold that name or another array has it."""
    if path.isprintable() and 0 < len(path) < 256 and path != "__metadata__" and path not in taken:
        return path
    return f"tensor.{len(taken)}" if f"tensor.{len(taken)}" not in taken else f"tensor.{len(taken)}.{path!r:.64}"


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (str, int)
