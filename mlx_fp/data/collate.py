"""Make a batch of a list of rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["collate", "is_array"]

_NUMBERS = (bool, int, float)
_WORDS: dict[str, Callable[[Any], str]] = {
    "type": lambda value: type(value).__name__,
    "keys": lambda value: ", ".join(map(str, value)),
    "length": lambda value: str(len(value)),
    "shape": lambda value: str(tuple(getattr(value, "shape", ()))),
}


def collate(rows: Sequence[Any]) -> Any:
    """Stack rows along a new first axis: dicts per key, tuples and lists per position, nested at will.

    `b` arrays of shape `(...)` become one of `(b, ...)`, mlx by `mx.stack`, others by `np.stack`. Python
    numbers become an mlx array of bool, int32 (int64 where one needs it) or float32. Anything else, such as
    strings, stays a list. Raise ValueError, naming the key or position, where rows differ in type, keys,
    length or shape.

    >>> collate([{"x": 1.5, "word": "one"}, {"x": 2.5, "word": "two"}])
    {'x': array([1.5, 2.5], dtype=float32), 'word': ['one', 'two']}
    >>> import mlx.core as mx
    >>> collate([(mx.zeros((2, 2)), 1), (mx.zeros((2, 3)), 2)])
    Traceback (most recent call last):
    ValueError: cannot stack row[0]: row 0 has shape (2, 2), row 1 has shape (2, 3)
    """
    if not rows:
        raise ValueError("cannot collate no rows")
    return _collated(list(rows), "row")


def is_array(value: object, module: str, name: str) -> bool:
    """Return whether `value` is of a class of a module that may not be installed, without importing it.

    >>> is_array([1.0], "numpy", "ndarray")
    False
    """
    return isinstance(value, getattr(sys.modules.get(module), name, ()))


def _collated(values: list[Any], at: str) -> Any:
    first = values[0]
    if isinstance(first, dict):
        _alike(values, at, "type", type)
        _alike(values, at, "keys", dict.keys)
        return {key: _collated([value[key] for value in values], f"{at}[{key!r}]") for key in first}
    if isinstance(first, (tuple, list)):
        _alike(values, at, "type", type)
        _alike(values, at, "length", len)
        columns = [_collated(list(column), f"{at}[{i}]") for i, column in enumerate(zip(*values, strict=True))]
        return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)
    return _stacked(values, at) if hasattr(first, "shape") or isinstance(first, _NUMBERS) else values


def _stacked(values: list[Any], at: str) -> Any:
    try:
        return _stack(values[0])(values)
    except (TypeError, ValueError):  # say where and why, if this is why
        _alike(values, at, "type", lambda value: _NUMBERS if isinstance(value, _NUMBERS) else type(value))
        _alike(values, at, "shape", lambda value: getattr(value, "shape", ()))
        raise


def _stack(first: Any) -> Callable[[list[Any]], Any]:
    if hasattr(first, "shape") and not is_array(first, "mlx.core", "array"):
        import numpy as np

        return np.stack
    from ..door import mx

    return mx.array if isinstance(first, _NUMBERS) else mx.stack


def _alike(values: list[Any], at: str, what: str, trait: Callable[[Any], Any]) -> None:
    """Raise ValueError, naming the first that differs, unless all values have the same trait."""
    traits = list(map(trait, values))
    if traits.count(traits[0]) < len(traits):
        i = next(i for i, this in enumerate(traits) if this != traits[0])
        one, other = (_WORDS[what](value) for value in (values[0], values[i]))
        raise ValueError(f"cannot stack {at}: row 0 has {what} {one}, row {i} has {what} {other}")
