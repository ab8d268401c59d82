"""One writer per folder, by a lock that a killed holder does not leave behind."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from ._file_lock import hold
from ._files import make_folder
from ._regular import held_file

__all__ = ["Lock"]

_LOG = logging.getLogger("mlx_fp.store")


class Lock:
    """A lock on a folder, held by an open file; the system drops it with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".mlx_fp.lock"
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock; BlockingIOError, saying who holds it, where another has it. The folder is made.

        A warning says so where the file system has no locks. A link or pipe in the place of the lock is an OSError.

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> one, other = Lock(folder), Lock(folder)
        >>> one.take()
        >>> other.take()
        Traceback (most recent call last):
        BlockingIOError: [Errno 11] another run writes here: process ... on ...
        >>> one.give_back()
        >>> other.take()
        >>> other.give_back()
        """
        folder = self.path.parent
        make_folder(folder)
        file = held_file(self.path)
        try:
            if not hold(file):
                _LOG.warning("the file system of %s has no locks: see to it that no other run writes there", folder)
            _say_who(file)
        except BaseException as error:
            holder = os.read(file, 200).decode(errors="replace") or "one that has not said so"
            os.close(file)
            if isinstance(error, BlockingIOError):
                told = f"another run writes here: {holder}"
                raise BlockingIOError(error.errno, told, os.fspath(folder)) from None
            if isinstance(error, OSError):
                raise type(error)(error.errno, error.strerror, os.fspath(self.path)) from None
            raise
        self._file = file

    def give_back(self) -> None:
        """Let others have the folder."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _say_who(file: int) -> None:
    """Write into the lock's file who holds it, for others to read; what another name has too is left alone."""
    if os.fstat(file).st_nlink > 1:
        return
    with suppress(OSError):  # a full disk
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
