"""Write a folder of files atomically: the folder appears complete, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..core._file_lock import LOCKS
from ..core._files import flush, flush_folder, make_folder, remove_leftovers, temporary_folder
from ..core._user_path import user_path

__all__ = ["write_folder"]


def write_folder(path: str | os.PathLike[str], fill: Callable[[Path], None], *, replace: bool = False) -> Path:
    """Write a folder: into a temporary folder beside it, then to disk, then under its name.

    A failed write raises an error, leaves an old folder intact, and leaves no temporary files. The new folder is
    complete on disk before it replaces an old one. The replacement takes two renames: if the system crashes between
    them, there is no folder of that name.

    Args:
        path: The folder. `~` is the home folder of the user. Missing folders above it are created.
        fill: A function that writes all files into the empty folder that it receives.
        replace: Whether an old folder with files is replaced. If False, such a folder raises FileExistsError.

    Returns:
        The path of the folder.

    >>> import tempfile
    >>> folder = write_folder(Path(tempfile.mkdtemp()) / "a", lambda new: (new / "b").write_bytes(b"one"))
    >>> [file.name for file in folder.iterdir()]
    ['b']
    """
    target = user_path(path)
    _check_vacant(target, replace)
    make_folder(target.parent)
    if LOCKS:
        remove_leftovers(target.parent, target.name)
    with temporary_folder(target) as temporary:
        new = temporary / "new"
        new.mkdir()
        fill(new)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        for file in filter(Path.is_file, new.rglob("*")):
            flush(file, mode & 0o666)
        flush_folder(new)
        _put_in_place(new, target, temporary / "old")
    flush_folder(target.parent)
    return target


def _check_vacant(target: Path, replace: bool) -> None:
    """Raise FileExistsError for a file, and for a folder with files that must not be replaced."""
    if target.is_dir() and not target.is_symlink():
        if replace or not any(target.iterdir()):
            return
        raise FileExistsError(f"{target} has files in it: give a new folder, or allow the replacement of this one")
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} is not a folder")


def _put_in_place(new: Path, target: Path, old: Path) -> None:
    """Rename the new folder to the target. An old folder goes to `old` first, and comes back if the rename fails."""
    with suppress(FileNotFoundError):
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
