"""Open files and folders that are held: a lock which the system drops with its holder, however that ends."""

from __future__ import annotations

import os
from typing import IO, Any

__all__ = ["LOCKS", "hold"]

LOCKS = os.name != "nt"
"""Whether the system has such locks. Windows instead deletes and renames no file that is open."""


def hold(file: IO[Any] | int, *, wait: bool = False) -> None:
    """Lock an open file or folder until it is closed, where there are locks. BlockingIOError where another has it.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as one, open(one.name, "rb") as other:
    ...     hold(one)
    ...     hold(other)
    Traceback (most recent call last):
    BlockingIOError: [Errno 11] Resource temporarily unavailable
    """
    if LOCKS:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
