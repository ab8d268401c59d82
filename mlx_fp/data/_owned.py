"""Copies of the items that a source or a cache keeps, for functions that may change their items in place."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any, cast

from ._stack import is_array_type

__all__ = ["owned", "unshared"]

Copying = Callable[[Any], Any]
"""Makes an item of its own of an item."""

_NUMBERS = frozenset({int, float, bool})
_SCALARS = frozenset({int, float, bool, str, bytes, type(None)})


def owned(item: Any) -> Any:
    """Return an item that shares nothing that can be changed in place: dicts, lists, tuples, sets and arrays are new.

    Numbers and strings are shared, and so are objects of other classes.

    >>> row = {"x": [1, 2], "y": (mx.zeros(2), "a")}
    >>> own = owned(row)
    >>> own["x"].append(3)
    >>> own["y"][0][0] = 7
    >>> row
    {'x': [1, 2], 'y': (array([0, 0], dtype=float32), 'a')}
    """
    kind: Any = type(item)
    if kind is dict:
        return {key: value if type(value) in _SCALARS else owned(value) for key, value in item.items()}
    if kind in _SCALARS:
        return item
    copied = _copying(kind)
    return item if copied is None else copied(item)


def unshared(batch: Any) -> Any:
    """Return a batch that `stack` made of kept rows: its arrays are new, and only lists of other things are shared.

    >>> kept = [None, {"n": 1}]
    >>> unshared({"meta": kept})["meta"][1] is kept[1]
    False
    """
    if isinstance(batch, dict):
        return {key: unshared(value) for key, value in batch.items()}
    if type(batch) is tuple:
        return tuple(map(unshared, batch))
    return owned(batch) if isinstance(batch, (list, tuple)) else batch


@cache
def _copying(kind: type) -> Copying | None:
    """Return the function that copies items of a class, None where they are shared."""
    if kind is list:
        return _list
    if kind is tuple:
        return lambda item: tuple(map(owned, item))
    if issubclass(kind, tuple):
        return (lambda item: kind(*map(owned, item))) if hasattr(kind, "_fields") else None
    if issubclass(kind, dict):
        return _mapping
    if issubclass(kind, (list, set, bytearray)):
        return copy
    methods: Any = kind
    if is_array_type(kind, "mlx.core", "array"):
        return cast(Copying, methods.__copy__)  # another array of the same memory, because MLX writes into none
    numpy = is_array_type(kind, "numpy", "ndarray") or is_array_type(kind, "numpy", "void")
    return cast(Copying, methods.copy) if numpy else None


def _list(item: list[Any]) -> list[Any]:
    return item.copy() if _are_scalars(item) else list(map(owned, item))


def _are_scalars(item: list[Any]) -> bool:
    if item and type(item[0]) in _NUMBERS:
        try:
            return type(sum(item)) in _NUMBERS  # with an array in it, it is another type; six times as fast as a look
        except TypeError:
            return False
    return _SCALARS.issuperset(map(type, item))


def _mapping(item: Any) -> Any:
    own = copy(item)  # a subclass may keep more than its items
    for key in own:
        own[key] = owned(own[key])
    return own
