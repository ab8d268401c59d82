"""Arrays and lists of numbers filled up to one length, and the numbers that a dtype holds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from math import inf
from typing import Any

from ..core._errors import refuse_mask
from ._stack import is_array, stack

__all__ = ["joined"]


def joined(values: list[Any], size: int, left: bool, fill: float, at: str) -> Any:
    """Stack arrays and lists of numbers, each filled up to a length.

    >>> joined([[1, 2], [3]], size=3, left=True, fill=0, at="row").tolist()
    [[0, 1, 2], [0, 0, 3]]
    """
    for value in values:
        refuse_mask(at, value)
    kind = _kind(values, fill)
    for dtype in {_dtype(own) for own in {kind if isinstance(value, list) else value.dtype for value in values}}:
        if not _holds(dtype, fill):
            told = f"{fill}, which {str(dtype).removeprefix('mlx.core.')} does not hold"
            raise ValueError(f"pad cannot fill {at} up with {told}: give another value, or rows of another dtype")
    if not all(isinstance(value, list) for value in values):
        return stack([_filled(_array(value), size, left, fill) for value in values])
    missing = _like(next((value[0] for value in values if value), 0), kind(fill))
    behind = [[missing] * (size - len(value)) for value in values]
    return stack([more + value if left else value + more for value, more in zip(values, behind, strict=True)])


def _kind(values: list[Any], fill: float) -> type:
    """Return the type of all numbers in the lists among the values; that of the fill where there are none."""
    lists = (_numbers(value) for value in values if isinstance(value, list))
    found = set(map(type, chain.from_iterable(lists))) or {type(fill)}
    return next((kind for kind in (bool, int) if all(issubclass(one, kind) for one in found)), float)


def _numbers(value: list[Any]) -> Iterable[Any]:
    """Return the numbers in a list of numbers, however deep."""
    return chain.from_iterable(map(_numbers, value)) if value and isinstance(value[0], list) else value


def _like(value: Any, fill: float) -> Any:
    """Return lists like those of a value, of nothing but the fill."""
    return [_like(one, fill) for one in value] if isinstance(value, list) else fill


def _array(value: Any) -> Any:
    from ..core._mlx import mx

    return mx.array(value) if isinstance(value, list) else value


def _dtype(own: Any) -> Any:
    """Return the dtype of mlx's for an array's own, or for a kind of numbers; None where mlx has none."""
    from ..core._mlx import mx

    if isinstance(own, mx.Dtype):
        return own
    name = getattr(own, "name", None) or {bool: "bool", int: "int64", float: "float32"}.get(own, "")
    return getattr(mx, "bool_" if name == "bool" else name, None)


def _holds(dtype: Any, fill: float) -> bool:
    """Whether a dtype has a number: integers the whole ones in their range, floats all that do not become infinite."""
    from ..core._mlx import mx

    if dtype is None:
        return True
    if dtype == mx.bool_:
        return fill in (0, 1)
    if mx.issubdtype(dtype, mx.integer):
        return fill % 1 == 0 and mx.iinfo(dtype).min <= fill <= mx.iinfo(dtype).max
    return not (mx.issubdtype(dtype, mx.floating) and mx.finfo(dtype).max < abs(fill) < inf)


def _filled(value: Any, size: int, left: bool, fill: float) -> Any:
    """Fill an array up to a length along its first axis."""
    missing = size - len(value)
    widths = [(missing, 0) if left else (0, missing)] + [(0, 0)] * (value.ndim - 1)
    if is_array(value, "mlx.core", "array"):
        from ..core._mlx import mx

        return mx.pad(value, widths, constant_values=fill)
    import numpy as np

    return np.pad(value, widths, constant_values=fill)
