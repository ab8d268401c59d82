"""Write files atomically: at every instant a path holds the complete old file or the complete new file."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ._errors import CheckpointError
from ._file_lock import LOCKS, lock_file
from ._regular import reading
from ._user_path import user_path

__all__ = [
    "TEMPORARY",
    "create_new",
    "file_sha256",
    "flush",
    "flush_folder",
    "link_or_copy",
    "make_folder",
    "remove_leftovers",
    "temporary_folder",
    "write_whole",
]

TEMPORARY = ".mlx_fp-tmp"
"""The suffix of the temporary folder in which a file is written."""


def write_whole(path: str | os.PathLike[str], content: bytes | Callable[[Path], None], *, swept: bool = False) -> Path:
    """Write a file atomically: into a temporary folder beside it, then to disk, then under its name.

    At every instant `path` holds the complete old file or the complete new file. Missing folders are created. A
    symbolic link is replaced and not followed. A failed write raises OSError with the path. The old file is then
    intact, and no temporary file remains.

    Args:
        path: The file. `~` is the home folder of the user.
        content: The bytes, or a function that creates a file at the path that it receives.
        swept: Whether the folder contains no leftovers of killed writers of this file. If False, the function lists the
            folder and deletes them first. Default: False.

    Returns:
        The path of the file.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_whole(os.path.join(folder, "deep", "a.txt"), b"one").read_bytes()
    b'one'
    """
    target = user_path(path)
    make_folder(target.parent)
    try:
        if LOCKS and not swept:
            remove_leftovers(target.parent, target.name)
        with temporary_folder(target) as temporary:
            new = temporary / "new"
            content(new) if callable(content) else _write(new, content)
            flush(new, stat.S_IMODE(temporary.stat().st_mode) & 0o666)
            os.replace(new, target)
        flush_folder(target.parent)
    except OSError as error:
        if error.errno is None or error.filename == os.fspath(target):
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from error
    return target


def create_new(path: Path) -> BinaryIO:
    """Create a new file and open it for writing. An existing file raises FileExistsError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def link_or_copy(path: Path, new: Path) -> None:
    """Create a hard link `new` to a complete file, or a copy where the file system has no hard links.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> link_or_copy(write_whole(folder / "a", b"one"), folder / "b")
    >>> (folder / "b").read_bytes()
    b'one'
    """
    try:
        os.link(os.path.realpath(path), new)
    except OSError:
        shutil.copyfile(path, new)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and flush them to disk, so that they survive a power cut.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "a" / "b"
    >>> make_folder(folder)
    >>> folder.is_dir()
    True
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        flush_folder(path.parent)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete the temporary folders that killed writers left in a folder; with `name`, only those of one file.

    The folders of active writers stay.


    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> left = folder / f".a.txt.0123abcd{TEMPORARY}"
    >>> left.mkdir()
    >>> remove_leftovers(folder, "b.txt"), left.exists()
    (None, True)
    >>> remove_leftovers(folder, "a.txt"), left.exists()
    (None, False)
    """
    size = len(f".{name}.01234567{TEMPORARY}")
    for entry in os.listdir(folder):
        if entry.endswith(TEMPORARY) and (not name or (entry.startswith(f".{name}.") and len(entry) == size)):
            with suppress(OSError):
                _delete_unlocked(folder / entry)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a regular file in hexadecimal. A pipe or a device raises CheckpointError.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     file_sha256(file.name)[:8]
    'e3b0c442'
    """
    try:
        with reading(user_path(path)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except ValueError as error:
        raise CheckpointError(f"{os.fspath(path)} is no checkpoint that can be read: {error}") from None


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Provide a locked folder beside the target inside the context, and delete it at the end."""
    folder, lock = _make_locked_folder(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the next writer of the file deletes the rest
        if lock is not None:
            os.close(lock)


def flush(path: Path, mode: int) -> None:
    """Flush a file to disk, and give it the usual permissions of a new file."""
    if LOCKS:
        os.chmod(path, mode)
    number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def flush_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, where the system can flush folders."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(folder)) from error
    finally:
        os.close(number)


def _make_locked_folder(target: Path) -> tuple[Path, int | None]:
    """Create a folder beside the target and lock it. Repeat where another process deleted the folder before the lock.

    The function returns the folder and its open file descriptor, or None where the system has no locks.
    """
    while True:
        folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        os.mkdir(folder)
        if not LOCKS:
            return folder, None
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except BaseException:
            folder.rmdir()
            raise
        with suppress(OSError):  # without locks in the file system, `remove_leftovers` cannot delete the folder either
            lock_file(lock, wait=True)
        if folder.exists():
            return folder, lock
        os.close(lock)


def _write(path: Path, content: bytes) -> None:
    with create_new(path) as file:
        file.write(content)


def _delete_unlocked(path: Path) -> None:
    """Delete a temporary folder without a lock, or a temporary file of an earlier version. Raise OSError for a lock."""
    if not LOCKS:
        shutil.rmtree(
            path.rename(path.with_name(f"{path.name}{TEMPORARY}"))
        )  # the rename fails if a file in it is open
        return
    lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # the name may belong to a pipe or a link
    try:
        if lock_file(lock):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(lock)
