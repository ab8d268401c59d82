"""Files that are whole at every instant: the old one, or the new one."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["TEMPORARY", "digest", "make_folder", "sweep", "write_whole"]

TEMPORARY = ".mlx_fp-tmp"
"""What the names of files that are being written end in."""


def write_whole(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], None]) -> Path:
    """Write a file beside its place, flush it to disk, and put it there; folders are made.

    The content may be a function that writes it to a file.

    At every instant `path` holds the whole old file or the whole new one. A failing write is an OSError with the path;
    the old file is intact, and nothing is left beside it. A symbolic link is replaced, not followed.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_whole(os.path.join(folder, "deep", "a.txt"), b"one").read_bytes()
    b'one'
    """
    target = Path(path)
    make_folder(target.parent)
    try:
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(number, "wb") as file:
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


def sweep(folder: Path) -> None:
    """Delete what killed writers left half-written in a folder. Only its holder may: nobody else writes there."""
    for left in folder.glob(f".*{TEMPORARY}"):
        left.unlink(missing_ok=True)


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
