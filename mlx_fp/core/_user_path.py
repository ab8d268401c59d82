"""Resolve paths that a user writes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["user_path"]


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path, with a leading `~` replaced by the home folder of the user.

    >>> user_path("runs/~a"), user_path("~/runs") == Path.home() / "runs"
    (PosixPath('runs/~a'), True)
    """
    return Path(os.path.expanduser(path))
