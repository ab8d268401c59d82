"""The folder of native kernels: only this user may write to it, and every library in it is checked.

MLX runs the libraries in this folder. So no other user may put a file there, and a damaged library must not be loaded,
because it kills the process. Each library carries its SHA-256 after its last byte, which no loader reads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import warnings
from pathlib import Path

__all__ = ["discard_damaged", "kernels_in", "make_private", "seal"]

_SEAL = b"%b  -\n"
"""The output of `sha256sum` for its standard input."""

_SEALED = 64 + len(b"  -\n")


def make_private(identity: str) -> Path:
    """Make the folder for kernels of an identity. Raise RuntimeError if another user can write to the folder.

    It is in the user's cache folder, and its own path is part of its name, so that a folder that was moved is not used.
    The cache folder is `XDG_CACHE_HOME`. It is `~/.cache` if the variable is not set, or is not absolute, as its
    specification says (https://specifications.freedesktop.org/basedir-spec/latest).
    """
    variable = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = variable if variable.is_absolute() else Path.home() / ".cache"
    if not home.is_absolute():
        raise RuntimeError(f"the home of this user is no absolute path: {home.parent}; XDG_CACHE_HOME names a place")
    parent = Path(os.path.realpath(home)) / "mlx_fp"
    sha256 = hashlib.sha256(b"\n".join([os.fsencode(parent), identity.encode()])).hexdigest()
    folder = parent / f"kernels-{sha256[:16]}"
    _refuse_others(parent)  # before a folder is made there
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_others(folder)
    return folder


def seal(library: Path) -> None:
    """Write the SHA-256 of a library after its last byte.

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
    """Delete the damaged libraries in a folder; a RuntimeWarning gives their number."""
    damaged = [path for path in folder.rglob("*.so") if not _is_sound(path)]
    for path in damaged:
        shutil.rmtree(path) if stat.S_ISDIR(path.lstat().st_mode) else path.unlink(missing_ok=True)
    if damaged:
        message = f"{len(damaged)} native kernels in {folder} were damaged; they are deleted, and built again"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def kernels_in(folder: Path) -> int:
    """Count the kernels that MLX has built in a folder.

    >>> kernels_in(Path("no such folder"))
    0
    """
    return sum(1 for _ in folder.glob("mlx/*/cpu/*.so"))


def _is_sound(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        content = path.read_bytes()
    except FileNotFoundError:  # another process has deleted it
        return True
    return content[-_SEALED:] == _SEAL % hashlib.sha256(content[:-_SEALED]).hexdigest().encode()


def _refuse_others(folder: Path) -> None:
    """Raise RuntimeError if another user could replace a folder, or a folder above it."""
    for level in (folder, *folder.parents):
        if not level.exists():
            continue
        status = level.stat()
        if status.st_uid not in (0, os.geteuid()):
            raise RuntimeError(f"{level} is another user's (uid {status.st_uid}), and MLX runs the kernels in {folder}")
        sticky = status.st_mode & stat.S_ISVTX and level != folder  # there only the owner replaces a folder
        if status.st_mode & 0o022 and not sticky and _is_shared(status):
            raise RuntimeError(
                f"others can write to {level}, and MLX runs the kernels in {folder}: it must be this user's alone"
            )


def _is_shared(status: os.stat_result) -> bool:
    """Tell whether another user may write: anybody, or a group with other members than this user."""
    if status.st_mode & stat.S_IWOTH:
        return True
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(status.st_gid)
    except KeyError:
        return True
    return group.gr_name != name or not {name}.issuperset(group.gr_mem)
