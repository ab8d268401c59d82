"""Indices within the bounds of an array: MLX reads and writes foreign memory for an index out of range.

A compiled function cannot raise an error for the value of an array. Therefore an index out of range is replaced by an
index in range, and the gathered row becomes NaN, which ends a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._types import Array

__all__ = ["Guarded", "guarded_classes", "within_bounds"]


def within_bounds(indices: Array, size: int, *, negative: bool = False) -> tuple[Array, Array]:
    """Return int32 indices within an axis, and for each whether the given index was in range.

    Args:
        indices: Integers of any dtype.
        size: The length of the axis.
        negative: Whether -1 to -size count from the end, as in numpy. Otherwise they are out of range.

    Returns:
        `(indices, in_range)`, both of the shape of `indices`; `in_range` is bool.

    >>> [each.tolist() for each in within_bounds(mx.array([-1, 2, 7]), 4)]
    [[0, 2, 3], [False, True, False]]
    >>> [each.tolist() for each in within_bounds(mx.array([-1, 2, -5]), 4, negative=True)]
    [[-1, 2, -4], [True, True, False]]
    """
    wide = indices.astype(mx.int64)  # in 32 bits, 2**32 would wrap to 0
    lowest = -size if negative and indices.dtype != mx.uint64 else 0  # in int64, the largest uint64 are negative
    safe = mx.clip(wide, lowest, size - 1)
    return safe.astype(mx.int32), safe == wide


class Guarded:
    """A table of vectors that returns NaN for indices out of range. It is a mixin for a class of mlx.nn."""

    def __call__(self, x: Array | int | list[Any]) -> Array:
        """Gather the rows of `x`; indices from -size to -1 count from the end, as in MLX.

        In training, one index out of range makes all rows NaN. This adds only a scalar to the rows, at almost no cost.
        """
        gather = super().__call__  # type: ignore[misc]  # the next class is a table of mlx.nn
        x = mx.array(x) if isinstance(x, (int, list)) and not isinstance(x, bool) else x
        if not isinstance(x, mx.array) or not mx.issubdtype(x.dtype, mx.integer):
            return gather(x)  # type: ignore[no-any-return]  # a call of the next class
        table: mlx_nn.Module = self  # type: ignore[assignment]  # the mixin is always used with a table
        safe, in_range = within_bounds(x, table["weight"].shape[0], negative=True)
        rows: Array = gather(safe)
        poison = mx.where(mx.all(in_range) if table.training else in_range[..., None], 0.0, mx.nan)
        return rows + poison.astype(rows.dtype)


class _Embedding(Guarded, mlx_nn.Embedding):
    pass


class _QuantizedEmbedding(Guarded, mlx_nn.QuantizedEmbedding):
    pass


_TABLES: Mapping[type, type] = MappingProxyType(
    {mlx_nn.Embedding: _Embedding, mlx_nn.QuantizedEmbedding: _QuantizedEmbedding}
)
"""The classes of mlx.nn that gather rows by the user's integers, and their guarded classes."""


def guarded_classes(module: mlx_nn.Module) -> Mapping[type, type]:
    """Return the guarded class for each class of table in a module.

    In a subclass of a table, the guard stands before MLX's own `__call__`. Therefore it also guards the indices that a
    `__call__` of the subclass passes to `super().__call__`.

    >>> [kind.__name__ for kind in guarded_classes(mlx_nn.Embedding(4, 2)).values()]
    ['Embedding']
    """
    kinds: set[type] = {type(inner) for _, inner in module.named_modules()}
    return {kind: guarded for kind in kinds if (guarded := _guarded(kind)) is not None}


@cache
def _guarded(kind: type) -> type | None:
    for table, guarded in _TABLES.items():
        if issubclass(kind, table):
            bases = (guarded,) if kind is table else (kind, guarded)
            return type(kind.__name__, bases, {"__module__": kind.__module__})
    return None
