"""Regular files alone are opened: a pipe or a device would block or never end, and a link leads elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

__all__ = ["held_file", "reading"]

_UNBLOCKED = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Within, have a regular file open for reading; links are followed. An OSError that passes gets the path.

    ValueError for a pipe, a device or a socket.

    >>> with reading(os.devnull):
    ...     pass
    Traceback (most recent call last):
    ValueError: it is a device, and only regular files are read
    """
    try:
        with _opened(path) as file:
            yield file
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from error


def held_file(path: Path) -> int:
    """Open a file of the library's own at a fixed name, made where there is none; its content stays.

    OSError, with the path, for anything else at that name: whoever may write to the folder can put a link there.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | _UNBLOCKED
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
    """Raise OSError, with the remedy, where something other than a regular file stands."""
    try:
        kind = _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode))
    except FileNotFoundError:  # it could not be made
        return
    if kind is not None:
        raise OSError(errno.EEXIST, f"{kind} is where mlx_fp keeps a file of its own: delete it", os.fspath(path))


def _opened(path: str | os.PathLike[str]) -> BufferedReader:
    _check(os.stat(path), path)  # to open a device may do something
    number = os.open(path, os.O_RDONLY | _UNBLOCKED)
    try:
        _check(os.fstat(number), path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def _check(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ValueError(f"it is {kind}, and only regular files are read")
