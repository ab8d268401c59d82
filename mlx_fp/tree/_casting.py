"""Cast the floating arrays of a tree to another type."""

from __future__ import annotations

from typing import TypeGuard

from ..core._mlx import mx, utils
from ..core._types import Tree
from ._paths import copy_arrays, leaves

__all__ = ["cast", "first_floating", "is_narrow", "widened"]

tree_map = utils.tree_map


def is_narrow(dtype: mx.Dtype | None) -> bool:
    """Tell whether a type is a floating type narrower than float32.

    >>> is_narrow(mx.bfloat16), is_narrow(mx.float32), is_narrow(mx.int8), is_narrow(None)
    (True, False, False, False)
    """
    return dtype is not None and mx.issubdtype(dtype, mx.floating) and dtype.size < mx.float32.size


def first_floating(tree: Tree) -> mx.Dtype | None:
    """Return the dtype of the first floating array of a tree, or None if there is no such array.

    >>> first_floating({"tokens": mx.array([1, 2]), "x": [mx.zeros((2,), mx.float16)]})
    mlx.core.float16
    """
    return next((leaf.dtype for leaf in leaves(tree) if _is_floating(leaf)), None)


def cast(tree: Tree, dtype: mx.Dtype | None) -> Tree:
    """Copy a tree, with its floating arrays cast to `dtype`. With None the arrays keep their dtype.

    >>> cast([mx.array(1.5), mx.array(1)], mx.bfloat16)
    [array(1.5, dtype=bfloat16), array(1, dtype=int32)]
    """
    if dtype is None:
        return copy_arrays(tree)
    return tree_map(lambda leaf: leaf.astype(dtype) if _is_floating(leaf) else leaf, copy_arrays(tree))


def widened(tree: Tree) -> Tree:
    """Return a tree with its narrow floating arrays in float32. All other leaves stay the same objects.

    >>> widened((mx.array(1.5, mx.float16), mx.array(1)))
    (array(1.5, dtype=float32), array(1, dtype=int32))
    """
    return tree_map(lambda leaf: leaf.astype(mx.float32) if _is_array(leaf) and is_narrow(leaf.dtype) else leaf, tree)


def _is_array(leaf: object) -> TypeGuard[mx.array]:
    return isinstance(leaf, mx.array)


def _is_floating(leaf: object) -> bool:
    return _is_array(leaf) and mx.issubdtype(leaf.dtype, mx.floating)
