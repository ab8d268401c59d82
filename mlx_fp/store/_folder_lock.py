"""One writer per folder, by a lock that a killed holder does not leave behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import BinaryIO

from ._file_lock import hold
from ._files import make_folder

__all__ = ["Lock"]


class Lock:
    """A lock on a folder, held by an open file; the system drops it with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".mlx_fp.lock"
        self._file: BinaryIO | None = None

    def take(self) -> None:
        """Take the lock; BlockingIOError, saying who holds it, where another has it. The folder is made.

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
        make_folder(self.path.parent)
        file = self.path.open("a+b")
        try:
            hold(file)
        except OSError as error:
            file.seek(0)
            holder = file.read(200).decode(errors="replace") or "one that has not said so"
            file.close()
            told = f"another run writes here: {holder}"
            raise BlockingIOError(error.errno, told, os.fspath(self.path.parent)) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        self._file = file

    def give_back(self) -> None:
        """Let others have the folder."""
        if self._file is not None:
            self._file.close()
            self._file = None
