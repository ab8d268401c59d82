"""Open regular files only: a pipe or a device would block or never end, and a link leads to another file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

__all__ = ["open_own_file", "reading"]

_OPEN_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Open a regular file for reading inside the context. Links are followed.

    A pipe, a device or a socket raises ValueError. An OSError inside the context gets the path of the file.

    >>> with reading(os.devnull):
    ...     pass
    Traceback (most recent call last):
    ValueError: it is a device, and only regular files are read
    """
    try:
        with _open_regular(path) as file:
            yield file
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from error


def open_own_file(path: Path) -> int:
    """Open a file with a fixed name that belongs to the library, and return its descriptor. Keep its content.

    A missing file is created. Anything but a regular file raises OSError with the path, because any user who can write
    to the folder could put a link there.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | _OPEN_FLAGS
    try:
        number = os.open(path, flags, 0o666)
    except OSError:
        _refuse_other(path)
        raise
    if stat.S_ISREG(os.fstat(number).st_mode):
        return number
    os.close(number)
    _refuse_other(path)
    raise OSError(errno.EEXIST, "it was replaced while it was opened", os.fspath(path))


def _refuse_other(path: Path) -> None:
    """Raise OSError with the remedy if the path is no regular file."""
    try:
        kind = _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode))
    except FileNotFoundError:  # the system could not create the file
        return
    if kind is not None:
        raise OSError(errno.EEXIST, f"{kind} is in the place of a file of mlx_fp: delete it", os.fspath(path))


def _open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    _check_regular(os.stat(path), path)  # checked first, because opening a device may have side effects
    number = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
    try:
        _check_regular(os.fstat(number), path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def _check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"it is {kind}, and only regular files are read")
