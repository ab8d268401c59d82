"""Trees of arrays in another floating type."""

from __future__ import annotations

from typing import Any

from ..core._mlx import mx, utils
from ..core._types import Tree
from ._paths import fresh, leaves

__all__ = ["cast", "first_floating", "is_narrow", "widened"]

tree_map = utils.tree_map


def is_narrow(dtype: Any) -> bool:
    """Tell whether a type is a floating type narrower than float32.

    >>> is_narrow(mx.bfloat16), is_narrow(mx.float32), is_narrow(mx.int8), is_narrow(None)
    (True, False, False, False)
    """
    return dtype is not None and mx.issubdtype(dtype, mx.floating) and dtype.size < mx.float32.size


def first_floating(tree: Tree) -> Any:
    """Return the type of the first floating array of a tree, None if it has no such array.

    >>> first_floating({"tokens": mx.array([1, 2]), "x": [mx.zeros((2,), mx.float16)]})
    mlx.core.float16
    """
    return next((leaf.dtype for leaf in leaves(tree) if _is_floating(leaf)), None)


def cast(tree: Tree, dtype: Any) -> Tree:
    """Take a tree afresh, its floating arrays in another floating type, None being their own.

    >>> cast([mx.array(1.5), mx.array(1)], mx.bfloat16)
    [array(1.5, dtype=bfloat16), array(1, dtype=int32)]
    """
    if dtype is None:
        return fresh(tree)
    return tree_map(lambda leaf: leaf.astype(dtype) if _is_floating(leaf) else leaf, fresh(tree))


def widened(tree: Tree) -> Tree:
    """Return a tree with its narrow floating arrays in float32, and all other leaves as they are.

    >>> widened((mx.array(1.5, mx.float16), mx.array(1)))
    (array(1.5, dtype=float32), array(1, dtype=int32))
    """
    return tree_map(lambda leaf: leaf.astype(mx.float32) if _is_array(leaf) and is_narrow(leaf.dtype) else leaf, tree)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, mx.array)


def _is_floating(leaf: Any) -> bool:
    return _is_array(leaf) and mx.issubdtype(leaf.dtype, mx.floating)
