"""Copies of the items that a source or a cache keeps, for functions that may change their items in place."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any, cast

from ._stack import is_array_type
from ._types import Item, ItemFunction

__all__ = ["copy_batch", "copy_item"]

_NUMBERS = frozenset({int, float, bool})
_SCALARS = frozenset({int, float, bool, str, bytes, type(None)})


def copy_item(item: Item) -> Item:
    """Return a copy of an item with new dicts, lists, tuples, sets and arrays.

    Numbers, strings and objects of other classes are shared.

    >>> row = {"x": [1, 2], "y": (mx.zeros(2), "a")}
    >>> copied = copy_item(row)
    >>> copied["x"].append(3)
    >>> copied["y"][0][0] = 7
    >>> row
    {'x': [1, 2], 'y': (array([0, 0], dtype=float32), 'a')}
    """
    kind: type = type(item)
    if kind is dict:
        return {key: value if type(value) in _SCALARS else copy_item(value) for key, value in item.items()}
    if kind in _SCALARS:
        return item
    copier = _copier(kind)
    return item if copier is None else copier(item)


def copy_batch(batch: Item) -> Item:
    """Return a batch that shares nothing with the rows that `stack` made it of.

    The arrays of such a batch are new already, so only its lists are copied.

    >>> rows = [None, {"n": 1}]
    >>> copy_batch({"meta": rows})["meta"][1] is rows[1]
    False
    """
    if isinstance(batch, dict):
        return {key: copy_batch(value) for key, value in batch.items()}
    if type(batch) is tuple:
        return tuple(map(copy_batch, batch))
    return copy_item(batch) if isinstance(batch, (list, tuple)) else batch


@cache
def _copier(kind: type) -> ItemFunction | None:
    """Return the function that copies items of a class, None for a class whose items are shared."""
    if kind is list:
        return _copy_list
    if kind is tuple:
        return lambda item: tuple(map(copy_item, item))
    if issubclass(kind, tuple):
        return (lambda item: kind(*map(copy_item, item))) if hasattr(kind, "_fields") else None
    if issubclass(kind, dict):
        return _copy_mapping
    if issubclass(kind, list):
        return _copy_sequence
    if issubclass(kind, (set, bytearray)):
        return copy
    methods = cast(Any, kind)
    if is_array_type(kind, "mlx.core", "array"):
        return cast(ItemFunction, methods.__copy__)  # shares the memory, which is safe: MLX never writes into memory
    numpy = is_array_type(kind, "numpy", "ndarray") or is_array_type(kind, "numpy", "void")
    return cast(ItemFunction, methods.copy) if numpy else None


def _copy_list(item: list[Item]) -> list[Item]:
    return item.copy() if _are_scalars(item) else list(map(copy_item, item))


def _are_scalars(item: list[Item]) -> bool:
    if item and type(item[0]) in _NUMBERS:
        try:
            # A list with an array has a sum of another type. This is six times as fast as a look at each element.
            return type(sum(item)) in _NUMBERS
        except TypeError:
            return False
    return _SCALARS.issuperset(map(type, item))


def _copy_sequence(item: list[Item]) -> list[Item]:
    copied = copy(item)  # keeps the attributes that a subclass may have in addition to its items
    copied[:] = map(copy_item, item)
    return copied


def _copy_mapping(item: dict[Item, Item]) -> dict[Item, Item]:
    copied = copy(item)  # keeps the attributes that a subclass may have in addition to its items
    for key in copied:
        copied[key] = copy_item(copied[key])
    return copied
