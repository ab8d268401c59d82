"""Prevent MLX from fusing the results of an update into one kernel, so that each reuses the memory of its input.

MLX fuses the update of a parameter, its moments and its average into one kernel. A kernel of several results writes
none of them in place, so a compiled step needs the whole state twice. What a non-elementwise operation reads stays out
of the fusion; then each kernel has one result, and the old array's memory holds it. Where freed memory is at hand, one
kernel of several results is faster, but for native kernels.
"""

from __future__ import annotations

from typing import Any

from ..core._mlx import mx, utils
from ..core._types import Tree
from ._thresholds import SEPARATE_ELEMENTS, WAIT_BYTES

__all__ = ["separate_all", "separate_large_models"]


def separate_all(state: Tree, parameter_bytes: int = 0) -> Tree:
    """Return the same values, the large arrays computed by kernels of their own.

    >>> separate_all({"m": mx.array([1.0]), "step": mx.array(3)})["step"].item()
    3
    """
    return utils.tree_map(_separate, state)


def separate_large_models(state: Tree, parameter_bytes: int) -> Tree:
    """Return the same values, the large arrays of a large model computed by kernels of their own."""
    return separate_all(state) if parameter_bytes >= WAIT_BYTES else state


def _separate(leaf: Any) -> Any:
    return mx.depends([leaf], [])[0] if isinstance(leaf, mx.array) and leaf.size >= SEPARATE_ELEMENTS else leaf
