"""Arrays that MLX has put off: only the thread that made them can compute them."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["evaluated"]


def evaluated(tree: Any) -> Any:
    """Return a tree, its MLX arrays evaluated for other threads to read; anything else in it is left alone.

    >>> evaluated([(mx.ones(2) * 2, "two")])
    [(array([2, 2], dtype=float32), 'two')]
    """
    if sys.modules.get("mlx.core"):
        from ..core._mlx import mx

        mx.eval(tree)
    return tree
