"""Make a batch of a list of rows, and rows of a batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..core._errors import refuse_mask

__all__ = ["alike", "describe", "is_array", "is_array_type", "is_numbers", "stack", "unstack"]

_NUMBERS = (bool, int, float)
_WORDS: dict[str, Callable[[Any], str]] = {
    "type": lambda value: type(value).__name__,
    "keys": lambda value: ", ".join(map(str, value)),
    "length": lambda value: str(len(value)),
    "shape": lambda value: str(tuple(getattr(value, "shape", ()))),
}


def stack(rows: Sequence[Any]) -> Any:
    """Stack rows along a new first axis: dicts per key, tuples per position, nested at will.

    `b` arrays of shape `(...)` become one of `(b, ...)`, mlx by `mx.stack`, others by `np.stack`. Python
    numbers become an mlx array of bool, int32 (int64 where one needs it) or float32. A list of `n` numbers is a
    value, and `b` of them an array `(b, n)`, lists of such lists an array of more axes; any other list is stacked
    per position. Anything else, such as strings, stays a list. Raise ValueError, naming the key or position,
    where rows differ in type, keys, length or shape, and TypeError for masked arrays.

    >>> stack([{"x": 1.5, "word": "one"}, {"x": 2.5, "word": "two"}])
    {'x': array([1.5, 2.5], dtype=float32), 'word': ['one', 'two']}
    >>> stack([([1.0, 2.0], 0), ([3.0, 4.0], 1)])[0].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    >>> import mlx.core as mx
    >>> stack([(mx.zeros((2, 2)), 1), (mx.zeros((2, 3)), 2)])
    Traceback (most recent call last):
    ValueError: cannot stack row[0]: row 0 has shape (2, 2), row 1 has shape (2, 3); pad them, see data.pad
    """
    if not rows:
        raise ValueError("cannot stack no rows")
    return _tree(list(rows), "row")


def is_array(value: object, module: str, name: str) -> bool:
    """Return whether `value` is of a class of a module that may not be installed, without importing it.

    >>> is_array([1.0], "numpy", "ndarray")
    False
    """
    return isinstance(value, getattr(sys.modules.get(module), name, ()))


def is_array_type(kind: type, module: str, name: str) -> bool:
    """Return whether a class is one of a module that may not be installed, or is made of it.

    >>> is_array_type(list, "numpy", "ndarray")
    False
    """
    return issubclass(kind, getattr(sys.modules.get(module), name, ()))


def is_numbers(value: object) -> bool:
    """Return whether a value is a list of numbers, or of such lists: an array as Python writes it.

    >>> is_numbers([1, 2.5]), is_numbers([[1], [2]]), is_numbers([1, "a"]), is_numbers((1, 2))
    (True, True, False, False)
    """
    if not isinstance(value, list):
        return False
    if value and isinstance(value[0], list):
        return all(map(is_numbers, value))
    return all(map(_is_number, value))


def alike(values: list[Any], at: str, what: str, trait: Callable[[Any], Any]) -> None:
    """Raise ValueError, naming the first that differs, unless all values have the same trait.

    >>> alike([{"x": 1}, {"x": 2, "y": 3}], "row", "keys", dict.keys)
    Traceback (most recent call last):
    ValueError: cannot stack row: row 0 has keys x, row 1 has keys x, y
    """
    traits = list(map(trait, values))
    if traits.count(traits[0]) < len(traits):
        i = next(i for i, this in enumerate(traits) if this != traits[0])
        one, other = (_WORDS[what](value) for value in (values[0], values[i]))
        hint = "; pad them, see data.pad" if what in ("length", "shape") else ""
        raise ValueError(f"cannot stack {at}: row 0 has {what} {one}, row {i} has {what} {other}{hint}")


def unstack(batch: Any) -> list[Any]:
    """Take a batch apart along its first axis, the inverse of `stack`.

    >>> unstack({"word": ["one", "two"], "n": mx.array([1, 2])})[1]
    {'word': 'two', 'n': array(2, dtype=int32)}
    """
    if isinstance(batch, dict):
        return [dict(zip(batch, row, strict=True)) for row in _rows(batch.values(), batch)]
    if isinstance(batch, tuple):
        rows, kind = _rows(batch, batch), cast(Any, type(batch))
        return [kind(*row) for row in rows] if hasattr(batch, "_fields") else rows
    if isinstance(batch, list) or getattr(batch, "ndim", False):
        return list(batch)
    raise ValueError(f"cannot take apart {describe(batch)}: it has no rows")


def describe(tree: Any) -> str:
    """Say what a batch is made of.

    >>> describe({"x": mx.zeros((2, 3)), "y": [1, 2]})
    '{x: float32 (2, 3), y: list of 2}'
    """
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, tuple):
        return f"({', '.join(map(describe, tree))})"
    if hasattr(tree, "shape"):
        return f"{str(tree.dtype).removeprefix('mlx.core.')} {tuple(tree.shape)}"
    return f"{type(tree).__name__} of {len(tree)}" if hasattr(tree, "__len__") else type(tree).__name__


def _tree(values: list[Any], at: str) -> Any:
    first = values[0]
    if not isinstance(first, (dict, tuple, list)):
        return _leaf(values, at) if hasattr(first, "shape") or isinstance(first, _NUMBERS) else values
    if len(set(map(type, values))) > 1 or len(set(map(len, values))) > 1:
        alike(values, at, "type", type)
        what, trait = ("keys", dict.keys) if isinstance(first, dict) else ("length", len)
        alike(values, at, what, trait)
    if isinstance(first, list) and is_numbers(first):
        return _numbers(values, at)
    if isinstance(first, dict):
        return {key: _tree(_column(values, key, at), f"{at}[{key!r}]") for key in first}
    columns = [_tree(list(column), f"{at}[{i}]") for i, column in enumerate(zip(*values, strict=True))]
    return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)


def _column(values: list[Any], key: Any, at: str) -> list[Any]:
    try:
        return [value[key] for value in values]
    except KeyError:
        alike(values, at, "keys", dict.keys)
        raise


def _leaf(values: list[Any], at: str) -> Any:
    try:
        stacked = _by(values[0])(values)
    except (TypeError, ValueError):  # say where and why, if this is why
        alike(values, at, "type", lambda value: _NUMBERS if isinstance(value, _NUMBERS) else type(value))
        alike(values, at, "shape", lambda value: getattr(value, "shape", ()))
        raise
    refuse_mask(at, stacked)
    return stacked


def _by(first: Any) -> Callable[[list[Any]], Any]:
    if hasattr(first, "shape") and not is_array(first, "mlx.core", "array"):
        import numpy as np

        return np.stack
    from ..core._mlx import mx

    return mx.array if isinstance(first, _NUMBERS) else mx.stack


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) or (is_array(value, "numpy", "generic") and value.dtype.kind in "biuf")


def _numbers(values: list[Any], at: str) -> Any:
    """Make one array of lists of numbers, mlx's of Python's numbers and numpy's of its own."""
    from ..core._mlx import mx

    try:
        return mx.array(values)
    except (TypeError, ValueError, RuntimeError):  # say where and why
        _same_lengths(values, at)
    if any(isinstance(one, int) and not -(2**63) <= one < 2**63 for value in values for one in value):
        raise ValueError(f"cannot stack {at}: a number in it does not fit into int64")
    import numpy as np

    return np.array(values)


def _same_lengths(values: list[Any], at: str) -> None:
    """Raise ValueError unless the values are numbers, or lists of them of one length at every depth."""
    alike(values, at, "type", lambda value: _NUMBERS if _is_number(value) else type(value))
    if not isinstance(values[0], list):
        return
    alike(values, at, "length", len)
    for i, places in enumerate(zip(*values, strict=True)):
        _same_lengths(list(places), f"{at}[{i}]")
    lengths = [len(one) for one in values[0] if isinstance(one, list)]
    if len(set(lengths)) > 1:
        raise ValueError(f"cannot stack {at}: it is a list of lists of lengths {lengths}; make it a tuple, or pad them")


def _rows(columns: Any, batch: Any) -> list[tuple[Any, ...]]:
    apart = [unstack(column) for column in columns]
    if len(set(map(len, apart))) > 1:
        raise ValueError(f"cannot take apart {describe(batch)}: its parts have different lengths")
    return list(zip(*apart, strict=True))
