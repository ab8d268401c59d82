"""Evaluate lazy arrays: MLX computes a lazy array only in the thread that made it."""

from __future__ import annotations

import sys
from typing import TypeVar

__all__ = ["evaluate_arrays"]

T = TypeVar("T")


def evaluate_arrays(tree: T) -> T:
    """Return a tree whose MLX arrays are evaluated, so that other threads can read them; other values are ignored.

    >>> evaluate_arrays([(mx.ones(2) * 2, "two")])
    [(array([2, 2], dtype=float32), 'two')]
    """
    if sys.modules.get("mlx.core"):
        from ..core._mlx import mx

        mx.eval(tree)
    return tree
