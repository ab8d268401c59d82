"""Threads that the library makes for itself."""

from __future__ import annotations

import sys

__all__ = ["begin_thread"]


def begin_thread() -> None:
    """Prepare the calling thread, which the library has made, as the backend wants it; nothing where MLX is not in use.

    >>> begin_thread()
    """
    backend = sys.modules.get(f"{__package__}.backend")
    if backend is not None:
        backend.device_backend().thread()
