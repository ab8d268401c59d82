"""Open files that are held: a lock which the system drops with its holder, however that ends."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

__all__ = ["LOCKS", "hold", "holding"]

LOCKS = os.name != "nt"
"""Whether the system has such locks. Windows instead deletes and renames no file that is open."""


def hold(file: IO[Any], *, wait: bool = False) -> None:
    """Lock an open file until it is closed, where there are locks. BlockingIOError where another has it.

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


def holding(file: IO[Any]) -> AbstractContextManager[Any]:
    """Within, hold a file on that is held, also when it is closed there.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as one, open(one.name, "rb") as other:
    ...     hold(one)
    ...     with holding(one):
    ...         one.close()
    """
    return os.fdopen(os.dup(file.fileno()), "rb") if LOCKS else nullcontext()
