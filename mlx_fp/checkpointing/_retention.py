"""Which checkpoints of a policy there are, which run they are of, and which of them stay. Read off the folder."""

from __future__ import annotations

import logging
import math
import os
import re
import string
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..store._checkpoint import SUFFIXES, peek
from ._policy import Policy

__all__ = ["File", "best_of", "is_newest", "is_sound", "kept", "listed", "new_run", "of_line", "owned"]

_LOG = logging.getLogger("mlx_fp.loop")

File = tuple[Path, dict[str, Any]]
"""A checkpoint, and those of its metadata that it is known by."""

Seen = dict[tuple[Path, int, int, int], "dict[str, Any] | None"]
"""What headers said that were read before, by path, number, time and size of the file."""

_INDEXED = (
    *("epoch", "next_epoch", "step", "epoch_loss", "monitor_name", "monitor_mode", "monitor_value", "improved"),
    *("cursor", "run", "branch"),
)


def owned(policy: Policy) -> list[Path]:
    """List the files in the policy's folder that have a name of the policy's, whole or damaged."""
    folder, named = policy.folder, _pattern(policy.path)
    if not folder.is_dir():
        return []
    paths = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and not path.name.startswith("."))
    return [path for path in paths if named.fullmatch(os.path.abspath(path)) and path.is_file()]


def listed(policy: Policy, seen: Seen | None = None) -> list[File]:
    """List the checkpoints of a policy: those of older runs first, and the older ones of each.

    This goes by their headers, which only `load` checks. Files whose header cannot be that of a run are left out. With
    `seen`, which is brought up to date, no header is read twice.
    """
    told = _read(owned(policy), {} if seen is None else seen)
    files = [(path, one) for path, one in told if one is not None and policy.owns(path, one)]
    return sorted(files, key=lambda file: (file[1]["run"], file[1]["step"], file[1]["next_epoch"], str(file[0])))


def of_line(files: list[File], told: Mapping[str, Any]) -> list[File]:
    """Choose the files of a run, and of those that it branched off from up to where it did; `told` is of its newest.

    >>> files = [(Path(run + str(step)), {"run": run, "step": step}) for run, step in (("a", 4), ("a", 5), ("b", 5))]
    >>> [path.name for path, _ in of_line(files, {"run": "b", "branch": {"a": 4}})]
    ['a4', 'b5']
    """
    until = {**told["branch"], told["run"]: math.inf}
    return [file for file in files if file[1]["step"] <= until.get(file[1]["run"], -1)]


def new_run(files: list[File]) -> str:
    """Return the name of a run that begins now: it comes after those of a policy's files, whatever the clock says."""
    others = [int(told["run"]) for _, told in files if told["run"].isdigit()]
    return str(max([time.time_ns(), *(1 + other for other in others)]))


def is_newest(path: Path | None, files: list[File]) -> bool:
    """Tell whether a run resumed from a file is still that run: from any but the newest it is another."""
    return not files or path is None or os.path.realpath(files[-1][0]) == os.path.realpath(path)


def _read(paths: list[Path], seen: Seen) -> list[tuple[Path, dict[str, Any] | None]]:
    now: Seen = {}
    for path in paths:
        with suppress(FileNotFoundError):  # another process deletes, too
            found = path.stat()
            key = path, found.st_ino, found.st_mtime_ns, found.st_size
            now[key] = seen[key] if key in seen else _known(path)
    seen.clear()
    seen.update(now)
    return [(path, told) for (path, *_), told in now.items()]


def _known(path: Path) -> dict[str, Any] | None:
    """Return what a file is known by; OSError, with the path, where the system fails to read it."""
    try:
        told = peek(path)
    except PermissionError as error:  # the file of another user, to a path function that may name any
        _LOG.warning("%s is passed over: %s", path, error)
        return None
    return {name: told.get(name) for name in _INDEXED} if told is not None and is_sound(told) else None


def is_sound(told: dict[str, Any]) -> bool:
    """Tell whether metadata have what checkpoints of a run are known by.

    >>> is_sound({"step": 3})
    False
    """
    cursor, value, branch = told.get("cursor"), told.get("monitor_value"), told.get("branch")
    return (
        all(type(told.get(name)) is int for name in ("epoch", "step", "next_epoch"))
        and all(type(told.get(name)) is str for name in ("run", "monitor_name", "monitor_mode"))
        and (value is None or type(value) in (int, float))
        and isinstance(cursor, dict)
        and type(cursor.get("index")) is int
        and "improved" in told
        and isinstance(branch, dict)
        and all(type(step) is int for step in branch.values())
    )


def best_of(files: list[File]) -> list[File]:
    """Order the checkpoints of evaluations, best first: the last that improved, then the others by value."""
    judged = [file for file in files if _value(file[1]) is not None]
    by_value = sorted(judged, key=lambda file: _value(file[1]) or 0.0)
    improved = [file for file in judged if file[1]["improved"]][-1:]
    return improved + [file for file in by_value if file not in improved]


def kept(policy: Policy, files: list[File]) -> set[Path]:
    """Choose the files that stay: the last ones, and the best."""
    last = files if policy.keep_last is None else files[-policy.keep_last :]
    return {path for path, _ in [*last, *best_of(files)[: policy.keep_best]]}


def _value(told: dict[str, Any]) -> float | None:
    """Return the monitor's value, less being better; None where there is no number."""
    value = told["monitor_value"]
    if value is None or value != value:
        return None
    return float(value if told["monitor_mode"] == "min" else -value)


def _pattern(path: Any) -> re.Pattern[str]:
    """Return what the absolute paths of a template look like; a function's may be any."""
    if not isinstance(path, str):
        return re.compile(".*", re.DOTALL)
    parts = string.Formatter().parse(os.path.abspath(path))
    text = "".join(re.escape(literal) + ("" if field is None else "[^/\\\\]*") for literal, field, _, _ in parts)
    suffix = "" if path.endswith(SUFFIXES) else "(" + "|".join(map(re.escape, SUFFIXES)) + ")"
    return re.compile(text + suffix)
