"""The folder of native kernels: this user's alone, and every library in it as it was built.

What lies there is run. So nobody else may put a file there, and a damaged one must not be loaded: it kills the process.
A library carries its SHA-256 behind its last byte, where no loader looks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import warnings
from pathlib import Path

__all__ = ["discard_damaged", "make_private", "seal"]

_SEAL = b"%b  -\n"
"""What `sha256sum` says of its input."""

_SEALED = 64 + len(b"  -\n")


def make_private(told: str) -> Path:
    """Make the folder for kernels of which `told` says all; RuntimeError where others could write to it.

    It is in the user's folder for caches, and knows its place: moved, it is another one. The folder for caches is
    `XDG_CACHE_HOME`, or `~/.cache` where that is not set or, as its specification says, not absolute
    (https://specifications.freedesktop.org/basedir-spec/latest).
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = given if given.is_absolute() else Path.home() / ".cache"
    if not home.is_absolute():
        raise RuntimeError(f"the home of this user is no absolute path: {home.parent}; XDG_CACHE_HOME names a place")
    above = Path(os.path.realpath(home)) / "mlx_fp"
    known = hashlib.sha256(b"\n".join([os.fsencode(above), told.encode()])).hexdigest()
    folder = above / f"kernels-{known[:16]}"
    _refuse_others(above)  # before anything is made there
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_others(folder)
    return folder


def seal(library: Path) -> None:
    """Write the SHA-256 of a library behind its last byte.

    >>> import tempfile
    >>> library = Path(tempfile.mkdtemp()) / "a.so"
    >>> _ = library.write_bytes(b"code")
    >>> seal(library), _is_sound(library)
    (None, True)
    >>> _ = library.write_bytes(library.read_bytes()[1:])
    >>> _is_sound(library)
    False
    """
    with library.open("ab") as file:
        file.write(_SEAL % hashlib.sha256(library.read_bytes()).hexdigest().encode())


def discard_damaged(folder: Path) -> None:
    """Delete the libraries in a folder that are not as they were built; a RuntimeWarning says how many."""
    damaged = [path for path in folder.rglob("*.so") if not _is_sound(path)]
    for path in damaged:
        shutil.rmtree(path) if stat.S_ISDIR(path.lstat().st_mode) else path.unlink(missing_ok=True)
    if damaged:
        told = f"{len(damaged)} native kernels in {folder} were damaged; they are deleted, and built again"
        warnings.warn(told, RuntimeWarning, stacklevel=2)


def _is_sound(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        content = path.read_bytes()
    except FileNotFoundError:  # another process has deleted it
        return True
    return content[-_SEALED:] == _SEAL % hashlib.sha256(content[:-_SEALED]).hexdigest().encode()


def _refuse_others(folder: Path) -> None:
    """Raise RuntimeError where another user could put something in the place of a folder, or of one above it."""
    for one in (folder, *folder.parents):
        if not one.exists():
            continue
        held = one.stat()
        if held.st_uid not in (0, os.geteuid()):
            raise RuntimeError(f"{one} is another user's (uid {held.st_uid}), and what lies in {folder} is run")
        sticky = held.st_mode & stat.S_ISVTX and one != folder  # there nobody replaces the folder of another
        if held.st_mode & 0o022 and not sticky and _shared(held):
            raise RuntimeError(
                f"others can write to {one}, and what lies in {folder} is run: it must be this user's alone"
            )


def _shared(held: os.stat_result) -> bool:
    """Tell whether others than the user may write: the world, or a group that is not the user's own alone."""
    if held.st_mode & stat.S_IWOTH:
        return True
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(held.st_gid)
    except KeyError:
        return True
    return group.gr_name != name or not {name}.issuperset(group.gr_mem)
