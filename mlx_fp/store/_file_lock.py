"""Open files and folders that are held: a lock which the system drops with its holder, however that ends."""

from __future__ import annotations

import errno
import os
from typing import IO, Any

__all__ = ["LOCKS", "hold"]

LOCKS = os.name != "nt"
"""Whether the system has such locks. Windows instead deletes and renames no file that is open."""

_WITHOUT = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system without locks answers."""


def hold(file: IO[Any] | int, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed. Return whether its file system has locks.

    BlockingIOError where another has it. On a system without locks nothing is done, and True returned.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as one, open(one.name, "rb") as other:
    ...     _ = hold(one)
    ...     hold(other)
    Traceback (most recent call last):
    BlockingIOError: [Errno 11] Resource temporarily unavailable
    """
    if not LOCKS:
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _WITHOUT:
            return False
        if error.errno == errno.EACCES:  # as NFS says it
            raise BlockingIOError(error.errno, error.strerror) from None
        raise
    return True
