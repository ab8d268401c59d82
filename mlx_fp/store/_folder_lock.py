"""Allow one writer per folder, by a lock that the system releases when its process ends."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from ..core._file_lock import lock_file
from ..core._files import make_folder
from ..core._regular import open_own_file

__all__ = ["Lock"]

_LOG = logging.getLogger("mlx_fp.store")


class Lock:
    """Lock a folder by an open file in it. The system releases the lock when the process ends, also after a kill."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".mlx_fp.lock"
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock. Create the folder if it is missing.

        If another process holds the lock, BlockingIOError names that process. A warning appears where the file system
        has no locks. A link or a pipe in the place of the lock file raises OSError.

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> first, second = Lock(folder), Lock(folder)
        >>> first.take()
        >>> second.take()
        Traceback (most recent call last):
        BlockingIOError: [Errno 11] another run writes here: process ... on ...
        >>> first.give_back()
        >>> second.take()
        >>> second.give_back()
        """
        folder = self.path.parent
        make_folder(folder)
        file = open_own_file(self.path)
        try:
            if not lock_file(file):
                _LOG.warning("the file system of %s has no locks: make sure that no other run writes there", folder)
            _write_holder(file)
        except BaseException as error:
            holder = os.read(file, 200).decode(errors="replace") or "an unknown process"
            os.close(file)
            if isinstance(error, BlockingIOError):
                message = f"another run writes here: {holder}"
                raise BlockingIOError(error.errno, message, os.fspath(folder)) from None
            if isinstance(error, OSError):
                raise type(error)(error.errno, error.strerror, os.fspath(self.path)) from None
            raise
        self._file = file

    def give_back(self) -> None:
        """Release the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_holder(file: int) -> None:
    """Write the holder into the lock file, for other processes. Do not write where the file has a second hard link."""
    if os.fstat(file).st_nlink > 1:
        return
    with suppress(OSError):  # a full disk
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {_host()}".encode())


def _host() -> str:
    from socket import gethostname  # a late import: it takes milliseconds

    return gethostname()
