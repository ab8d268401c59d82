"""A folder for libraries that this user builds and loads. Nobody else may write to it.

A library in a folder that another user can write to would let that user run code in this process.
"""

from __future__ import annotations

import os
import stat
from importlib.util import source_hash

__all__ = ["make_private"]


def make_private(kind: str, identity: str) -> str:
    """Make the folder for libraries of a kind and an identity. RuntimeError if another user can write to the folder.

    It is in the user's cache folder, and its own path is part of its name, so that a folder that was moved is not used.
    The cache folder is `XDG_CACHE_HOME`. It is `~/.cache` if the variable is not set, or is not absolute, as its
    specification says (https://specifications.freedesktop.org/basedir-spec/latest).
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(home):
        where = os.path.dirname(home)
        raise RuntimeError(f"the home of this user is no absolute path: {where}; XDG_CACHE_HOME names a place")
    parent = os.path.join(os.path.realpath(home), "mlx_fp")
    folder = os.path.join(parent, f"{kind}-{source_hash(os.fsencode(parent) + identity.encode()).hex()}")
    _refuse_others(parent)  # before a folder is made there
    os.makedirs(folder, mode=0o700, exist_ok=True)
    _refuse_others(folder)
    return folder


def _refuse_others(folder: str) -> None:
    """Raise RuntimeError if another user could replace a folder, or a folder above it."""
    parts = folder.split(os.sep)
    for level in (os.sep.join(parts[:depth]) or os.sep for depth in range(len(parts), 0, -1)):
        if not os.path.exists(level):
            continue
        status = os.stat(level)
        if status.st_uid not in (0, os.geteuid()):
            raise RuntimeError(f"{level} is another user's (uid {status.st_uid}), and libraries in {folder} are loaded")
        sticky = status.st_mode & stat.S_ISVTX and level != folder  # there only the owner replaces a folder
        if status.st_mode & 0o022 and not sticky and _is_shared(status):
            raise RuntimeError(
                f"others can write to {level}, and libraries in {folder} are loaded: it must be this user's alone"
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
