"""Convert the numpy arrays of a tree to MLX arrays."""

from __future__ import annotations

from typing import Any, TypeVar

from ..core._errors import refuse_mask
from ..core._mlx import mx, utils
from ..core._types import Array, Tree

__all__ = ["as_arrays"]

T = TypeVar("T")


def as_arrays(tree: Tree) -> Tree:
    """Convert the numpy arrays of a tree to MLX arrays. All other leaves stay the same objects."""
    return utils.tree_map(_as_mlx_array, tree)


def _as_mlx_array(leaf: T) -> T | Array:
    if isinstance(leaf, mx.array) or not hasattr(leaf, "__array__"):
        return leaf
    refuse_mask("a batch or input", leaf, "holds")
    try:
        return _convert(leaf)
    except (RuntimeError, ValueError, TypeError) as error:
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise TypeError(f"MLX has no arrays of {kind}, and a batch or input contains one") from error


def _convert(leaf: Any) -> Array:
    try:
        return mx.array(leaf)
    except (RuntimeError, ValueError):  # MLX refuses negative strides and bytes in the order of other machines
        array = leaf.__array__()
        return mx.array(array.astype(array.dtype.newbyteorder("="), order="C"))
