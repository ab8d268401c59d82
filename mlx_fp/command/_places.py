"""The folders of runs below `runs`: a new one for each run, and the newest one to resume from."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from functools import partial
from itertools import chain, count
from pathlib import Path

from ..across._errors import from_first
from ..across._world import World
from ..core._errors import nearest
from ..core._user_path import user_path
from ..store._checkpoint_path import SUFFIXES
from ._bundles import read_run
from ._usage import UsageError, missing_path

__all__ = ["resume_source", "run_folder"]

ROOT = Path("runs")
"""The folder of all runs."""

_RESUMES = ("latest", "best")


def run_folder(name: str, out: Path | None, resume: str | None, world: World) -> Path:
    """Return the folder of a run, the same in all processes.

    Args:
        name: Name of the experiment.
        out: The folder that was given. None: a new folder, or with `resume` the newest one of the experiment.
        resume: The word after `--resume`, or None.
        world: The processes of the run.
    """
    if out is not None:
        return _usable_folder(user_path(out))
    return Path(from_first(world, partial(_chosen_folder, ROOT / _file_name(name), resume)))


def _usable_folder(path: Path) -> Path:
    """Return a path at which a folder is or can be made. A file there or above it is a `UsageError`."""
    nearest_path = next(each for each in (path, *path.parents) if each.exists())
    if not nearest_path.is_dir():
        raise UsageError(f"a run writes into a folder {str(path)!r}, and {str(nearest_path)!r} is a file")
    return path


def resume_source(resume: str | None) -> str | None:
    """Check the word after `--resume`: `latest`, `best`, or the path of a checkpoint or a bundle.

    Raises:
        UsageError: It is none of these; the message has the nearest right one.

    >>> resume_source("latset")
    Traceback (most recent call last):
    mlx_fp.command._usage.UsageError: there is no checkpoint 'latset': did you mean 'latest'?
    """
    if resume is None or resume in _RESUMES:
        return resume
    path = user_path(resume)
    if path.is_file() and path.suffix not in SUFFIXES:
        read_run(path)  # a file that is no checkpoint must be a bundle
        return resume
    if any(path.with_name(path.name + suffix).is_file() for suffix in ("", *SUFFIXES)):
        return resume
    if similar := nearest(resume, _RESUMES, n=1):
        raise UsageError(f"there is no checkpoint {resume!r}: did you mean {similar[0]!r}?")
    if path.is_dir():
        raise UsageError(f"{resume!r} is a folder: resume it with --out {resume} --resume latest")
    raise missing_path("checkpoint", path)


def _chosen_folder(root: Path, resume: str | None) -> str:
    """Return the newest folder in `root` for a run that resumes its own checkpoints, else a new one."""
    if resume in _RESUMES:
        folders = sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))
        if folders:
            return str(folders[-1])
        print(f"mlx-fp: {root} has no run to resume from: a new run begins", file=sys.stderr)
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    _usable_folder(root)
    names = chain([time], (f"{time}_{number}" for number in count(2)))
    return str(next(root / name for name in names if _is_made(root / name)))


def _is_made(folder: Path) -> bool:
    """Make a folder, and tell whether it is new: another run may begin in the same second."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _file_name(name: str) -> str:
    """Return the name of an experiment as the name of a folder.

    >>> _file_name("gpt 2/small"), _file_name("..")
    ('gpt 2_small', '_')
    """
    return re.sub(r"[/\\\\\0]|^\.+$", "_", name) or "_"
