"""Files that are whole at every instant: the old one, or the new one."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ._file_lock import LOCKS, hold, holding

__all__ = ["TEMPORARY", "digest", "make_folder", "sweep", "write_whole"]

TEMPORARY = ".mlx_fp-tmp"
"""What the names of files that are being written end in."""


def write_whole(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], None]) -> Path:
    """Write a file beside its place, flush it to disk, and put it there; folders are made.

    The content may be a function that writes it to a file.

    At every instant `path` holds the whole old file or the whole new one. A failing write is an OSError with the path;
    the old file is intact, and nothing is left beside it. What a killed writer of the same file left half-written is
    deleted first. A symbolic link is replaced, not followed.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_whole(os.path.join(folder, "deep", "a.txt"), b"one").read_bytes()
    b'one'
    """
    target = Path(path)
    make_folder(target.parent)
    try:
        if LOCKS:
            sweep(target.parent, target.name)
        beside, file = _begun(target)
        with holding(file):
            try:
                with file:
                    content(file) if callable(content) else file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, target)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        _flush_folder(target.parent)
    except OSError as error:
        if error.errno is None or error.filename == os.fspath(target):
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from error
    return target


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that a power cut leaves in place.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "a" / "b"
    >>> make_folder(folder)
    >>> folder.is_dir()
    True
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in new:
        _flush_folder(one.parent)


def sweep(folder: Path, name: str = "") -> None:
    """Delete what killed writers left half-written in a folder, or of one file in it; what is being written stays.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> left = folder / f".a.txt.0123abcd{TEMPORARY}"
    >>> left.touch()
    >>> sweep(folder, "b.txt"), left.exists()
    (None, True)
    >>> sweep(folder, "a.txt"), left.exists()
    (None, False)
    """
    size = len(f".{name}.01234567{TEMPORARY}")
    for left in os.listdir(folder):
        if left.endswith(TEMPORARY) and (not name or (left.startswith(f".{name}.") and len(left) == size)):
            with suppress(OSError):
                _delete_dead(folder / left)


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     digest(file.name)[:8]
    'e3b0c442'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make a file's new name durable, where folders can be flushed."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(folder)) from error
    finally:
        os.close(number)


def _begun(target: Path) -> tuple[Path, BinaryIO]:
    """Make a file beside the target, and hold it; another one, where a sweep was faster."""
    while True:
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(beside, flags, 0o666), "wb")
        with suppress(OSError):  # a file system without locks, where no sweep can delete it either
            hold(file, wait=True)
        if beside.exists():
            return beside, file
        file.close()


def _delete_dead(left: Path) -> None:
    """Delete a file that no writer holds; OSError for one that a writer does."""
    if not LOCKS:
        left.unlink()
        return
    with left.open("rb+") as file:
        hold(file)
        left.unlink()
