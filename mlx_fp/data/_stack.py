"""Stack rows into a batch, and split a batch into rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from ..core._errors import refuse_mask
from ..core._text import dtype_name
from ._types import Column, Item, Key

__all__ = ["check_same", "describe_batch", "is_array", "is_array_type", "is_numbers", "stack", "unstack"]

_NUMBERS = (bool, int, float)
_TRAIT_TEXTS: dict[str, Callable[[Item], str]] = {
    "type": lambda value: type(value).__name__,
    "keys": lambda value: ", ".join(map(str, value)),
    "length": lambda value: str(len(value)),
    "shape": lambda value: str(tuple(getattr(value, "shape", ()))),
}
"""For each trait that rows may differ in, the function that returns its text."""


def stack(rows: Sequence[Item]) -> Item:
    """Stack rows along a new first axis: dicts by key, tuples by position, at any depth.

    - `b` arrays `(...)` become one array `(b, ...)`, by `mx.stack` for MLX arrays and by `np.stack` for others.
    - Numbers of Python become an MLX array of bool, int32 (int64 where a number needs it) or float32.
    - A list of `n` numbers is one value, so `b` of them become an array `(b, n)`. Lists of such lists become an array
      with more axes.
    - Any other list is stacked by position, like a tuple.
    - Other values, for example strings, become a list.

    Args:
        rows: The rows, at least one.

    Returns:
        A batch of the same structure as a row.

    Raises:
        TypeError: A row holds a masked array.
        ValueError: There is no row, or rows differ in type, keys, length or shape; the message names the key or
            position.

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
    return _stack_values(list(rows), "row")


def is_array(value: object, module: str, name: str) -> bool:
    """Return whether `value` is an instance of a class, without importing the module, which may not be installed.

    >>> is_array([1.0], "numpy", "ndarray")
    False
    """
    return isinstance(value, getattr(sys.modules.get(module), name, ()))


def is_array_type(kind: type, module: str, name: str) -> bool:
    """Return whether `kind` is a class or a subclass of it, without importing the module, which may not be installed.

    >>> is_array_type(list, "numpy", "ndarray")
    False
    """
    return issubclass(kind, getattr(sys.modules.get(module), name, ()))


def is_numbers(value: object) -> bool:
    """Return whether a value is a list of numbers, or a list of such lists.

    >>> is_numbers([1, 2.5]), is_numbers([[1], [2]]), is_numbers([1, "a"]), is_numbers((1, 2))
    (True, True, False, False)
    """
    if not isinstance(value, list):
        return False
    if value and isinstance(value[0], list):
        return all(map(is_numbers, value))
    return all(map(_is_numeric, value))


def check_same(values: Sequence[Item], path: str, trait: str, trait_of: Callable[[Item], object]) -> None:
    """Raise ValueError, naming the first value that differs, unless all values have the same trait.

    >>> check_same([{"x": 1}, {"x": 2, "y": 3}], "row", "keys", dict.keys)
    Traceback (most recent call last):
    ValueError: cannot stack row: row 0 has keys x, row 1 has keys x, y
    """
    traits = list(map(trait_of, values))
    if traits.count(traits[0]) < len(traits):
        i = next(i for i, value_trait in enumerate(traits) if value_trait != traits[0])
        first, other = (_TRAIT_TEXTS[trait](value) for value in (values[0], values[i]))
        hint = "; pad them, see data.pad" if trait in ("length", "shape") else ""
        raise ValueError(f"cannot stack {path}: row 0 has {trait} {first}, row {i} has {trait} {other}{hint}")


def unstack(batch: Item) -> list[Item]:
    """Split a batch into rows along its first axis, the inverse of `stack`.

    Args:
        batch: An array or a list, or a dict or tuple of batches, at any depth.

    Returns:
        A list of rows.

    Raises:
        ValueError: The batch has no rows, or its columns have different lengths.

    >>> unstack({"word": ["one", "two"], "n": mx.array([1, 2])})[1]
    {'word': 'two', 'n': array(2, dtype=int32)}
    """
    if isinstance(batch, dict):
        return [dict(zip(batch, row, strict=True)) for row in _unstack_columns(batch.values(), batch)]
    if isinstance(batch, tuple):
        rows = _unstack_columns(batch, batch)
        make_row = cast(Callable[..., Item], type(batch))
        return [make_row(*row) for row in rows] if hasattr(batch, "_fields") else rows
    if isinstance(batch, list) or getattr(batch, "ndim", False):
        return list(batch)
    raise ValueError(f"cannot split {describe_batch(batch)} into rows: it has none")


def describe_batch(tree: Item) -> str:
    """Describe the structure of a batch with the dtypes and shapes of its arrays.

    >>> describe_batch({"x": mx.zeros((2, 3)), "y": [1, 2]})
    '{x: float32 (2, 3), y: list of 2}'
    """
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {describe_batch(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, tuple):
        return f"({', '.join(map(describe_batch, tree))})"
    if hasattr(tree, "shape"):
        return f"{dtype_name(tree.dtype)} {tuple(tree.shape)}"
    return f"{type(tree).__name__} of {len(tree)}" if hasattr(tree, "__len__") else type(tree).__name__


def _stack_values(values: list[Item], path: str) -> Item:
    """Stack rows, or the values of one column of rows; `path` names the column in messages."""
    first = values[0]
    if not isinstance(first, (dict, tuple, list)):
        return _stack_leaves(values, path) if hasattr(first, "shape") or isinstance(first, _NUMBERS) else values
    if len(set(map(type, values))) > 1 or len(set(map(len, values))) > 1:
        check_same(values, path, "type", type)
        trait, trait_of = ("keys", dict.keys) if isinstance(first, dict) else ("length", len)
        check_same(values, path, trait, trait_of)
    if isinstance(first, list) and is_numbers(first):
        return _stack_numbers(values, path)
    if isinstance(first, dict):
        return {key: _stack_values(_column(values, key, path), f"{path}[{key!r}]") for key in first}
    columns = [_stack_values(list(column), f"{path}[{i}]") for i, column in enumerate(zip(*values, strict=True))]
    return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)


def _column(values: list[Item], key: Key, path: str) -> list[Item]:
    try:
        return [value[key] for value in values]
    except KeyError:
        check_same(values, path, "keys", dict.keys)
        raise


def _stack_leaves(values: list[Item], path: str) -> Column:
    try:
        stacked = _stack_function(values[0])(values)
    except (TypeError, ValueError):  # the library's message does not name the column: raise one that does
        check_same(values, path, "type", lambda value: _NUMBERS if isinstance(value, _NUMBERS) else type(value))
        check_same(values, path, "shape", lambda value: getattr(value, "shape", ()))
        raise
    refuse_mask(path, stacked)
    return stacked


def _stack_function(first: Item) -> Callable[[list[Item]], Column]:
    if hasattr(first, "shape") and not is_array(first, "mlx.core", "array"):
        import numpy as np

        return np.stack
    from ..core._mlx import mx

    return mx.array if isinstance(first, _NUMBERS) else mx.stack


def _is_numeric(value: Item) -> bool:
    return isinstance(value, _NUMBERS) or (is_array(value, "numpy", "generic") and value.dtype.kind in "biuf")


def _stack_numbers(values: list[list[Item]], path: str) -> Column:
    """Return one array of lists of numbers: an MLX array for Python's numbers, a numpy array for numpy's."""
    from ..core._mlx import mx

    try:
        return mx.array(values)
    except (TypeError, ValueError, RuntimeError):  # MLX's message does not name the column: raise one that does
        _check_lengths(values, path)
    if any(isinstance(number, int) and not -(2**63) <= number < 2**63 for value in values for number in value):
        raise ValueError(f"cannot stack {path}: a number in it does not fit into int64")
    import numpy as np

    return np.array(values)


def _check_lengths(values: Sequence[Item], path: str) -> None:
    """Raise ValueError unless the values are numbers, or lists of numbers with the same length at every depth."""
    check_same(values, path, "type", lambda value: _NUMBERS if _is_numeric(value) else type(value))
    if not isinstance(values[0], list):
        return
    check_same(values, path, "length", len)
    for i, elements in enumerate(zip(*values, strict=True)):
        _check_lengths(list(elements), f"{path}[{i}]")
    lengths = [len(element) for element in values[0] if isinstance(element, list)]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"cannot stack {path}: it is a list of lists of lengths {lengths}; make it a tuple, or pad them"
        )


def _unstack_columns(columns: Iterable[Item], batch: Item) -> list[tuple[Item, ...]]:
    """Return the rows of several columns of a batch as tuples."""
    unstacked = [unstack(column) for column in columns]
    if len(set(map(len, unstacked))) > 1:
        raise ValueError(f"cannot split {describe_batch(batch)} into rows: its columns have different lengths")
    return list(zip(*unstacked, strict=True))
