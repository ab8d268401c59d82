"""Indices that a user gives, kept within an array: MLX reads and writes out of bounds for others.

A compiled function cannot raise an error for the value of an array. An index out of range is taken as one within, and
what was gathered for it becomes NaN, which ends a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._types import Array

__all__ = ["Guarded", "guarded_classes", "within_bounds"]


def within_bounds(indices: Array, size: int, *, negative: bool = False) -> tuple[Array, Array]:
    """Return indices from 0 to size - 1, int32, and for each whether it was in range.

    Args:
        indices: integers of any type.
        size: the length of the axis that they are for.
        negative: whether -1 to -size count from the end, as in numpy.

    >>> [one.tolist() for one in within_bounds(mx.array([-1, 2, 7]), 4)]
    [[0, 2, 3], [False, True, False]]
    >>> [one.tolist() for one in within_bounds(mx.array([-1, 2, -5]), 4, negative=True)]
    [[-1, 2, -4], [True, True, False]]
    """
    wide = indices.astype(mx.int64)  # in 32 bits 2**32 would be 0
    lowest = -size if negative and indices.dtype != mx.uint64 else 0  # the largest uint64 are negative in int64
    safe = mx.clip(wide, lowest, size - 1)
    return safe.astype(mx.int32), safe == wide


class Guarded:
    """A table of vectors that gives NaN for indices out of range; mixed into a class of mlx.nn."""

    def __call__(self, x: Any) -> Any:
        """Gather the rows of `x`, of which those from -size to -1 count from the end, as in MLX.

        In training one index out of range makes all rows NaN, a sum with a scalar, which costs next to nothing.
        """
        gather: Any = super().__call__  # type: ignore[misc]
        x = mx.array(x) if isinstance(x, (int, list)) and not isinstance(x, bool) else x
        if not isinstance(x, mx.array) or not mx.issubdtype(x.dtype, mx.integer):
            return gather(x)
        safe, sound = within_bounds(x, self["weight"].shape[0], negative=True)  # type: ignore[index]
        rows = gather(safe)
        poison = mx.where(mx.all(sound) if self.training else sound[..., None], 0.0, mx.nan)  # type: ignore[attr-defined]
        return rows + poison.astype(rows.dtype)


class _Embedding(Guarded, mlx_nn.Embedding):
    pass


class _QuantizedEmbedding(Guarded, mlx_nn.QuantizedEmbedding):
    pass


_TABLES: Mapping[Any, Any] = {mlx_nn.Embedding: _Embedding, mlx_nn.QuantizedEmbedding: _QuantizedEmbedding}
"""The classes of mlx.nn that gather by integers of a user, and the guarded ones."""


def guarded_classes(module: mlx_nn.Module) -> Mapping[type, type]:
    """Return the guarded tables that replace the tables in a module, by class.

    In a class made of a table the guard stands before the table's own `__call__`, so that it also guards what a
    `__call__` of that class hands to `super().__call__`.

    >>> [one.__name__ for one in guarded_classes(mlx_nn.Embedding(4, 2)).values()]
    ['Embedding']
    """
    kinds: set[Any] = {type(one) for _, one in module.named_modules()}
    return {kind: own for kind in kinds if (own := _guarded(kind)) is not None}


@cache
def _guarded(kind: Any) -> type | None:
    for table, guarded in _TABLES.items():
        if issubclass(kind, table):
            bases = (guarded,) if kind is table else (kind, guarded)
            return type(kind.__name__, bases, {"__module__": kind.__module__})
    return None
