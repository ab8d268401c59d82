"""Files that are whole at every instant: the old one, or the new one."""

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

from ..core._errors import CheckpointError
from ..core._user_path import user_path
from ._file_lock import LOCKS, hold
from ._regular import reading

__all__ = ["TEMPORARY", "begun", "digest", "make_folder", "same_as", "sweep", "write_whole"]

TEMPORARY = ".mlx_fp-tmp"
"""What the names of folders end in, in which a file is being written."""


def write_whole(path: str | os.PathLike[str], content: bytes | Callable[[Path], None], *, swept: bool = False) -> Path:
    """Write a file in a folder of its own beside its place, flush it to disk, and put it there; folders are made.

    The content may be a function that makes a file at the path that it is given, by whatever means.

    At every instant `path` holds the whole old file or the whole new one. A failing write is an OSError with the path;
    the old file is intact, and nothing is left beside it. What a killed writer of the same file left half-written is
    deleted first, unless the folder is `swept` already: to look for it takes a listing of the folder. A symbolic link
    is replaced, not followed.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_whole(os.path.join(folder, "deep", "a.txt"), b"one").read_bytes()
    b'one'
    """
    target = user_path(path)
    make_folder(target.parent)
    try:
        if LOCKS and not swept:
            sweep(target.parent, target.name)
        with _beside(target) as beside:
            new = beside / "new"
            content(new) if callable(content) else _write(new, content)
            _flush(new, stat.S_IMODE(beside.stat().st_mode) & 0o666)
            os.replace(new, target)
        _flush_folder(target.parent)
    except OSError as error:
        if error.errno is None or error.filename == os.fspath(target):
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from error
    return target


def begun(path: Path) -> BinaryIO:
    """Make a file that is not there, and open it for writing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def same_as(path: Path, new: Path) -> None:
    """Give a whole file a second name, or copy it where the file system has no second names.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> same_as(write_whole(folder / "a", b"one"), folder / "b")
    >>> (folder / "b").read_bytes()
    b'one'
    """
    try:
        os.link(os.path.realpath(path), new)
    except OSError:
        shutil.copyfile(path, new)


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
    >>> left.mkdir()
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
    """Return the SHA-256 of a regular file, in hexadecimal. CheckpointError for a pipe or a device.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     digest(file.name)[:8]
    'e3b0c442'
    """
    try:
        with reading(user_path(path)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except ValueError as error:
        raise CheckpointError(f"{os.fspath(path)} is no checkpoint that can be read: {error}") from None


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Within, have a folder beside the target that no sweep deletes; at the end it is gone."""
    beside, held = _taken(target)
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # what stays is deleted by the next writer of the file
        if held is not None:
            os.close(held)


def _taken(target: Path) -> tuple[Path, int | None]:
    """Make a folder beside the target, and hold it; another one, where a sweep was faster."""
    while True:
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        os.mkdir(beside)
        if not LOCKS:
            return beside, None
        try:
            held = os.open(beside, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except BaseException:
            beside.rmdir()
            raise
        with suppress(OSError):  # a file system without locks, where no sweep can delete it either
            hold(held, wait=True)
        if beside.exists():
            return beside, held
        os.close(held)


def _write(path: Path, content: bytes) -> None:
    with begun(path) as file:
        file.write(content)


def _flush(path: Path, mode: int) -> None:
    """Bring a file to disk, with the permissions of any new file, whoever made it."""
    if LOCKS:
        os.chmod(path, mode)
    number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


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


def _delete_dead(left: Path) -> None:
    """Delete a folder, or a file of an earlier version, that no writer holds; OSError for one that a writer does."""
    if not LOCKS:
        shutil.rmtree(left.rename(left.with_name(f"{left.name}{TEMPORARY}")))  # fails where a file in it is open
        return
    held = os.open(left, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # a pipe or a link may be there
    try:
        if hold(held):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    finally:
        os.close(held)
