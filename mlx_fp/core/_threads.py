"""Prepare the threads of the library."""

from __future__ import annotations

import sys

__all__ = ["begin_thread"]


def begin_thread() -> None:
    """Prepare the calling thread as the backend requires. Call this first in each thread that the library starts.

    It does nothing in a program that does not use MLX.

    >>> begin_thread()
    """
    backend = sys.modules.get(f"{__package__}.backend")
    if backend is not None:
        backend.device_backend().thread()
