"""How much freed memory MLX keeps for the next array on a CPU.

By default it is 32 MB, and larger arrays are had anew from the system at each step, page by page. On a GPU MLX keeps as
much as there is.
"""

from __future__ import annotations

import os

from ..core._mlx import PROCESS, mx

__all__ = ["keep"]

_limits = [32 << 20]
"""Limits that nobody asked for: MLX's own, and those of `keep`."""


def keep(size: int) -> None:
    """Let MLX keep so many bytes at least, unless the program has set a limit of its own; what it keeps now goes.

    MLX waits for the work of all threads as it does so. In a fork the threads of its parent would never answer, so
    nothing is done there.

    >>> keep(40 << 20)
    >>> now = mx.set_cache_limit(0)
    >>> _ = mx.set_cache_limit(now)
    >>> now >= 40 << 20
    True
    """
    if os.getpid() != PROCESS:
        return
    mx.clear_cache()  # arrays of other sizes, which would fill it for good
    if size > max(_limits):
        before = mx.set_cache_limit(size)
        if before in _limits:
            _limits.append(size)
        else:
            mx.set_cache_limit(before)
