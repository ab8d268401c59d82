"""Prepare the threads of the library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar

__all__ = ["begin_thread", "stop_asked"]

stop_asked: ContextVar[Callable[[], str | None]] = ContextVar("stop_asked", default=lambda: None)
"""Returns the name of the signal that asked the present run to stop, or None. Code that waits for a thread calls it."""


def begin_thread() -> None:
    """Prepare the calling thread as the backend requires. Call this first in each thread that the library starts.

    It does nothing in a program that does not use MLX.

    >>> begin_thread()
    """
    backend = sys.modules.get(f"{__package__}.backend")
    if backend is not None:
        backend.device_backend().thread()
