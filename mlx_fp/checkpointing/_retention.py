"""Which checkpoints of a policy there are, which run they are of, and which of them stay."""

from __future__ import annotations

import logging
import math
import os
import re
import string
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path
from typing import Any

from ..store._checkpoint import peek
from ..store._checkpoint_path import SUFFIXES
from ._policy import Policy

__all__ = [
    "File",
    "Mark",
    "Seen",
    "best_of",
    "in_order",
    "indexed",
    "is_newest",
    "is_sound",
    "listed",
    "mark_of",
    "new_run",
    "of_line",
    "owned",
    "superfluous",
]

_LOG = logging.getLogger("mlx_fp.loop")

File = tuple[Path, dict[str, Any]]
"""A checkpoint, and those of its metadata that it is known by."""

Mark = tuple[Path, int, int, int]
"""The path, number, time and size of a file: another file under the same path has another mark."""

Seen = dict[Mark, "dict[str, Any] | None"]
"""What headers said that were read before, by the marks of their files."""

_INDEXED = (
    *("epoch", "next_epoch", "step", "epoch_loss", "monitor_name", "monitor_mode", "monitor_value", "improved"),
    *("cursor", "run", "branch", "file"),
)


def owned(policy: Policy) -> list[Path]:
    """List the files in the policy's folder that have a name of the policy's, whole or damaged.

    Only folders that have such a name are looked into; with a function as the path all are. The file of the latest
    state is among them where it is no second name of another.
    """
    folder, latest = policy.folder, policy.latest_path
    if not folder.is_dir():
        return []
    if isinstance(policy.path, str):
        parts = _patterns(policy.path)[len(Path(os.path.abspath(folder)).parts) :]
        paths: Iterable[Path] = _matching(folder, parts)
    else:
        paths = folder.rglob("*")
    sound = (path for path in paths if path.suffix in SUFFIXES and not path.name.startswith("."))
    found = [path for path in sound if path.is_file() and path != latest]
    return found if latest is None or not latest.is_file() or _is_one_of(latest, found) else [*found, latest]


def listed(policy: Policy, seen: Seen | None = None) -> list[File]:
    """List the checkpoints of a policy: those of older runs first, and the older ones of each.

    This goes by their headers, which only `load` checks. Files whose header cannot be that of a run are left out. With
    `seen`, which is brought up to date, no header is read twice.
    """
    told = _read(owned(policy), {} if seen is None else seen)
    files = [(path, one) for path, one in told if one is not None and policy.owns(path, one)]
    if any(path == policy.latest_path and one in [other for _, other in files[:-1]] for path, one in files[-1:]):
        files.pop()  # a copy
    return sorted(files, key=in_order)


def in_order(file: File) -> tuple[Any, ...]:
    """Return the key by which files are sorted: older runs first, and the older files of each."""
    path, told = file
    return told["run"], told["step"], told["next_epoch"], str(path)


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


def _is_one_of(path: Path, others: list[Path]) -> bool:
    """Tell whether a file is a second name of another."""
    for other in others:
        with suppress(FileNotFoundError):  # another process deletes, too
            if path.samefile(other):
                return True
    return False


def _read(paths: list[Path], seen: Seen) -> list[tuple[Path, dict[str, Any] | None]]:
    now: Seen = {}
    for path in paths:
        with suppress(FileNotFoundError):  # another process deletes, too
            mark = mark_of(path)
            now[mark] = seen[mark] if mark in seen else _known(path)
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
    return indexed(told) if told is not None and is_sound(told) else None


def indexed(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a file's metadata that it is known by."""
    return {name: told.get(name) for name in _INDEXED}


def mark_of(path: Path) -> Mark:
    """Return the mark of a file. FileNotFoundError where there is none."""
    found = os.stat(path)
    return path, found.st_ino, found.st_mtime_ns, found.st_size


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


def best_of(files: list[File], count: int | None = None) -> list[File]:
    """Order the checkpoints of evaluations, best first: the last that improved, then the others by value.

    `count` says how many are wanted.
    """
    judged = [(value, i) for i, (_, told) in enumerate(files) if (value := _value(told)) is not None]
    improved = next((i for _, i in reversed(judged) if files[i][1]["improved"]), None)
    by_value = sorted(judged) if count is None else nsmallest(count, judged)
    order = [i for _, i in by_value if i != improved]
    return [files[i] for i in (order if improved is None else [improved, *order])][:count]


def superfluous(policy: Policy, files: list[File], spared: Iterable[Path | None] = ()) -> tuple[list[File], list[File]]:
    """Choose the files that go, all but the last ones, the best, and the spared; return them and the best.

    >>> told = {"monitor_value": None, "monitor_mode": "min", "improved": False}
    >>> files = [(Path(name), told) for name in "abc"]
    >>> superfluous(Policy("{step}", keep_last=1), files, [Path("a")])
    ([(...Path('b'), {...})], [])
    """
    older = [] if policy.keep_last is None else files[: -policy.keep_last]
    if not older:
        return [], []
    best = best_of(files, policy.keep_best)
    stay = {os.path.realpath(path) for path in [*spared, *(path for path, _ in best)] if path is not None}
    return [file for file in older if os.path.realpath(file[0]) not in stay], best


def _value(told: dict[str, Any]) -> float | None:
    """Return the monitor's value, less being better; None where there is no number."""
    value = told["monitor_value"]
    if value is None or value != value:
        return None
    return float(value if told["monitor_mode"] == "min" else -value)


def _patterns(template: str) -> list[re.Pattern[str]]:
    """Return what the names of folders and file look like in the absolute paths that a template makes."""
    parts = [""]
    for literal, field, _, _ in string.Formatter().parse(os.path.abspath(template)):
        first, *rest = literal.split(os.sep)
        parts[-1] += re.escape(first)
        parts += map(re.escape, rest)
        parts[-1] += "" if field is None else "[^/\\\\]*"
    if not template.endswith(SUFFIXES):
        parts[-1] += "(" + "|".join(map(re.escape, SUFFIXES)) + ")"
    return [re.compile(part, re.DOTALL) for part in parts]


def _matching(folder: Path, patterns: list[re.Pattern[str]]) -> Iterator[Path]:
    """Yield what has such a name in a folder, or below it in folders of such names."""
    first, *rest = patterns
    with suppress(FileNotFoundError), os.scandir(folder) as entries:  # another process deletes, too
        for entry in entries:
            if first.fullmatch(entry.name) and not rest:
                yield folder / entry.name
            elif first.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield from _matching(folder / entry.name, rest)
