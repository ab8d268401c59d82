"""Keep the results of an update apart, so that each is written over what it replaces.

MLX fuses the update of a parameter, its moments and its average into one kernel. A kernel of several results writes
none of them in place, so a compiled step needs the whole state twice. What a non-elementwise operation reads stays out
of the fusion; then each kernel has one result, and the old array's memory holds it. Where freed memory is at hand, one
kernel of several results is faster, but for native kernels.
"""

from __future__ import annotations

from typing import Any

from ..core._mlx import mx, utils
from ..core._types import Tree

__all__ = ["LARGE", "apart"]

LARGE = 1 << 18
"""The elements from which memory to be had anew costs more than a few launches of kernels."""


def apart(state: Tree) -> Tree:
    """Return a tree whose large arrays are computed by kernels of their own, the same values.

    >>> apart({"m": mx.array([1.0]), "step": mx.array(3)})["step"].item()
    3
    """
    return utils.tree_map(_alone, state)


def _alone(leaf: Any) -> Any:
    return mx.depends([leaf], [])[0] if isinstance(leaf, mx.array) and leaf.size >= LARGE else leaf
