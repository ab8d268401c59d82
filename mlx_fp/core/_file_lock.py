"""Lock open files and folders. The system releases a lock when its process ends, also after a kill."""

from __future__ import annotations

import errno
import os
from typing import IO

__all__ = ["LOCKS", "lock_file"]

LOCKS = os.name != "nt"
"""Whether the system has such locks. Windows has none, but it does not delete or rename open files."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""The error numbers of a file system without locks."""


def lock_file(file: IO[bytes] | int, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed. Return whether its file system has locks.

    If another holder has the lock, wait for it where `wait` is True, and raise BlockingIOError otherwise. On a system
    without locks the function does nothing and returns True.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file, open(file.name, "rb") as again:
    ...     _ = lock_file(file)
    ...     lock_file(again)
    Traceback (most recent call last):
    BlockingIOError: [Errno 11] Resource temporarily unavailable
    """
    if not LOCKS:
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        if error.errno == errno.EACCES:  # the error number of NFS
            raise BlockingIOError(error.errno, error.strerror) from None
        raise
    return True
