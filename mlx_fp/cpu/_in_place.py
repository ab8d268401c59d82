"""Prevent MLX from fusing the results of an update into one kernel, so that each result reuses its input's memory.

MLX fuses the update of a parameter, its moments and its average into one kernel. A kernel with several results writes
none of them in place, so a compiled step needs memory for the whole state twice. A result that a non-elementwise
operation reads stays out of the fusion. Then each kernel has one result, and writes it into the memory of the old
array. If freed memory is at hand, a stock kernel with several results is faster; native kernels are not.
"""

from __future__ import annotations

from ..core._mlx import mx, utils
from ..core._types import Tree
from ._thresholds import SEPARATE_ELEMENTS, WAIT_BYTES

__all__ = ["separate_all", "separate_large_models"]


def separate_all(state: Tree, parameter_bytes: int = 0) -> Tree:
    """Return the same values; each large array is computed by a kernel of its own.

    >>> separate_all({"m": mx.array([1.0]), "step": mx.array(3)})["step"].item()
    3
    """
    return utils.tree_map(_separate, state)


def separate_large_models(state: Tree, parameter_bytes: int) -> Tree:
    """Return the same values; each large array of a large model is computed by a kernel of its own."""
    return separate_all(state) if parameter_bytes >= WAIT_BYTES else state


def _separate(leaf: object) -> object:
    return mx.depends([leaf], [])[0] if isinstance(leaf, mx.array) and leaf.size >= SEPARATE_ELEMENTS else leaf
