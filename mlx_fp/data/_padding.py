"""Pad arrays and lists of numbers to one length, and check that a dtype can hold the fill value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

from ..core._errors import refuse_mask
from ..core._text import dtype_name
from ._stack import is_array, stack
from ._types import Column, Item

if TYPE_CHECKING:
    import mlx.core

__all__ = ["stack_padded"]


def stack_padded(values: Sequence[Item], size: int, left: bool, fill: float, path: str) -> Column:
    """Stack arrays and lists of numbers, each padded to the same length; `path` names the column in messages.

    >>> stack_padded([[1, 2], [3]], size=3, left=True, fill=0, path="row").tolist()
    [[0, 1, 2], [0, 0, 3]]
    """
    for value in values:
        refuse_mask(path, value)
    number_type = _number_type(values, fill)
    value_types = {number_type if isinstance(value, list) else value.dtype for value in values}
    for dtype in {_mlx_dtype(value_type) for value_type in value_types}:
        if not _can_hold(dtype, fill):
            problem = f"{fill}, which {dtype_name(dtype)} does not hold"
            raise ValueError(f"pad cannot fill {path} up with {problem}: give another value, or rows of another dtype")
    if not all(isinstance(value, list) for value in values):
        return stack([_pad_array(_as_array(value), size, left, fill) for value in values])
    element = _fill_like(next((value[0] for value in values if value), 0), number_type(fill))
    paddings = [[element] * (size - len(value)) for value in values]
    return stack([pads + value if left else value + pads for value, pads in zip(values, paddings, strict=True)])


def _number_type(values: Sequence[Item], fill: float) -> type:
    """Return the common type of all numbers in the lists; the type of the fill where there are no numbers."""
    lists = (_flat_numbers(value) for value in values if isinstance(value, list))
    types = set(map(type, chain.from_iterable(lists))) or {type(fill)}
    return next((kind for kind in (bool, int) if all(issubclass(each, kind) for each in types)), float)


def _flat_numbers(value: list[Item]) -> Iterable[float]:
    """Return the numbers in a list of numbers, at any depth."""
    return chain.from_iterable(map(_flat_numbers, value)) if value and isinstance(value[0], list) else value


def _fill_like(value: Item, fill: float) -> Item:
    """Return the fill in lists of the same structure as a value."""
    return [_fill_like(element, fill) for element in value] if isinstance(value, list) else fill


def _as_array(value: Item) -> Column:
    from ..core._mlx import mx

    return mx.array(value) if isinstance(value, list) else value


def _mlx_dtype(dtype: object) -> mlx.core.Dtype | None:
    """Return MLX's dtype for an array's dtype or for a Python number type; None where MLX has none."""
    from ..core._mlx import mx

    if isinstance(dtype, mx.Dtype):
        return dtype
    number_types: dict[object, str] = {bool: "bool", int: "int64", float: "float32"}
    name = getattr(dtype, "name", None) or number_types.get(dtype, "")
    return getattr(mx, "bool_" if name == "bool" else name, None)


def _can_hold(dtype: mlx.core.Dtype | None, fill: float) -> bool:
    """Whether a dtype can hold a number: integers in range for integer dtypes; for floats, all that stay finite."""
    from ..core._mlx import mx

    if dtype is None:
        return True
    if dtype == mx.bool_:
        return fill in (0, 1)
    if mx.issubdtype(dtype, mx.integer):
        return fill % 1 == 0 and mx.iinfo(dtype).min <= fill <= mx.iinfo(dtype).max
    return not (mx.issubdtype(dtype, mx.floating) and mx.finfo(dtype).max < abs(fill) < inf)


def _pad_array(value: Column, size: int, left: bool, fill: float) -> Column:
    """Pad an array to a length along its first axis."""
    missing = size - len(value)
    widths = [(missing, 0) if left else (0, missing)] + [(0, 0)] * (value.ndim - 1)
    if is_array(value, "mlx.core", "array"):
        from ..core._mlx import mx

        return mx.pad(value, widths, constant_values=fill)
    import numpy as np

    return np.pad(value, widths, constant_values=fill)
