"""List the checkpoints of a policy, assign them to runs, and choose those to keep."""

from __future__ import annotations

import logging
import math
import os
import re
import string
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path
from typing import Any

from ..store._checkpoint import Metadata, peek
from ..store._checkpoint_path import SUFFIXES
from ._policy import Policy

__all__ = [
    "File",
    "HeaderCache",
    "Mark",
    "best_of",
    "in_order",
    "indexed",
    "is_newest",
    "is_sound",
    "list_checkpoints",
    "mark_of",
    "new_run",
    "of_lineage",
    "owned",
    "superfluous",
]

_LOG = logging.getLogger("mlx_fp.loop")

File = tuple[Path, dict[str, Any]]
"""The path of a checkpoint, and its metadata with the names in `_INDEXED_FIELDS`."""

Mark = tuple[Path, int, int, int]
"""The path, inode, modification time and size of a file. Another file with the same path has another mark."""

HeaderCache = dict[Mark, "dict[str, Any] | None"]
"""The metadata from headers read before, by the marks of the files. None for a file that is no checkpoint."""

_INDEXED_FIELDS = (
    *("epoch", "next_epoch", "step", "epoch_loss", "monitor_name", "monitor_mode", "monitor_value", "improved"),
    *("cursor", "run", "branch", "file"),
)


def owned(policy: Policy) -> list[Path]:
    """List the files in the folder of a policy whose names fit the policy, damaged ones included.

    The search enters only folders whose names fit the template. With a path function it enters all folders. The list
    contains the file of the latest state, unless that file is a hard link to another file in the list.
    """
    folder, latest = policy.folder, policy.latest_path
    if not folder.is_dir():
        return []
    if isinstance(policy.path, str):
        parts = _patterns(policy.path)[len(Path(os.path.abspath(folder)).parts) :]
        paths: Iterable[Path] = _matching(folder, parts)
    else:
        paths = folder.rglob("*")
    candidates = (path for path in paths if path.suffix in SUFFIXES and not path.name.startswith("."))
    files = [path for path in candidates if path.is_file() and path != latest]
    return files if latest is None or not latest.is_file() or _is_second_name(latest, files) else [*files, latest]


def list_checkpoints(policy: Policy, cache: HeaderCache | None = None) -> list[File]:
    """List the checkpoints of a policy: older runs first, and older files of a run first.

    The list relies on the headers; only `load` checks them against the digest. Files without the header of a run are
    not listed. With a cache, which the function updates, each header is read once only.
    """
    headers = _read_headers(owned(policy), {} if cache is None else cache)
    files = [(path, index) for path, index in headers if index is not None and policy.owns(path, index)]
    if any(path == policy.latest_path and index in [other for _, other in files[:-1]] for path, index in files[-1:]):
        files.pop()  # the file of the latest state is a copy of another file
    return sorted(files, key=in_order)


def in_order(file: File) -> tuple[str, int, int, str]:
    """Return the sort key of a file: older runs first, and older files of a run first."""
    path, index = file
    return index["run"], index["step"], index["next_epoch"], str(path)


def of_lineage(files: list[File], metadata: Metadata) -> list[File]:
    """Choose the files of a run, and those of its ancestors up to each branch point.

    `metadata` is that of the newest file of the run. For example, `{"run": "b", "branch": {"a": 4}}` belongs to a run b
    that resumed from step 4 of run a.

    >>> files = [(Path(run + str(step)), {"run": run, "step": step}) for run, step in (("a", 4), ("a", 5), ("b", 5))]
    >>> [path.name for path, _ in of_lineage(files, {"run": "b", "branch": {"a": 4}})]
    ['a4', 'b5']
    """
    last_steps = {**metadata["branch"], metadata["run"]: math.inf}
    return [file for file in files if file[1]["step"] <= last_steps.get(file[1]["run"], -1)]


def new_run(files: list[File]) -> str:
    """Return the name of a new run. It sorts after the runs of all files, even if the clock went backwards."""
    others = [int(index["run"]) for _, index in files if index["run"].isdigit()]
    return str(max([time.time_ns(), *(1 + other for other in others)]))


def is_newest(path: Path | None, files: list[File]) -> bool:
    """Tell whether a file is the newest one.

    A run that resumes from the newest file keeps its name. A run that resumes from another file is a new run.
    """
    return not files or path is None or os.path.realpath(files[-1][0]) == os.path.realpath(path)


def _is_second_name(path: Path, others: list[Path]) -> bool:
    """Tell whether a path is a hard link to one of the other files."""
    for other in others:
        with suppress(FileNotFoundError):  # another process deletes, too
            if path.samefile(other):
                return True
    return False


def _read_headers(paths: list[Path], cache: HeaderCache) -> list[tuple[Path, dict[str, Any] | None]]:
    """Return the indexed metadata of each file, from the cache or from its header. Update the cache."""
    current: HeaderCache = {}
    for path in paths:
        with suppress(FileNotFoundError):  # another process deletes, too
            mark = mark_of(path)
            current[mark] = cache[mark] if mark in cache else _read_index(path)
    cache.clear()
    cache.update(current)
    return [(path, index) for (path, *_), index in current.items()]


def _read_index(path: Path) -> dict[str, Any] | None:
    """Return the indexed metadata of a file, or None if it is no checkpoint of a run.

    The function raises OSError with the path where the system cannot read the file.
    """
    try:
        metadata = peek(path)
    except PermissionError as error:  # a path function searches all folders, so it may meet files of other users
        _LOG.warning("%s is passed over: %s", path, error)
        return None
    return indexed(metadata) if metadata is not None and is_sound(metadata) else None


def indexed(metadata: Metadata) -> dict[str, Any]:
    """Return the part of the metadata by which a file is listed and compared."""
    return {name: metadata.get(name) for name in _INDEXED_FIELDS}


def mark_of(path: Path) -> Mark:
    """Return the mark of a file. A missing file raises FileNotFoundError."""
    status = os.stat(path)
    return path, status.st_ino, status.st_mtime_ns, status.st_size


def is_sound(metadata: Metadata) -> bool:
    """Tell whether metadata contain the fields of a checkpoint of a run, with the right types.

    >>> is_sound({"step": 3})
    False
    """
    cursor, value, branch = metadata.get("cursor"), metadata.get("monitor_value"), metadata.get("branch")
    return (
        all(type(metadata.get(name)) is int for name in ("epoch", "step", "next_epoch"))
        and all(type(metadata.get(name)) is str for name in ("run", "monitor_name", "monitor_mode"))
        and (value is None or type(value) in (int, float))
        and isinstance(cursor, dict)
        and type(cursor.get("index")) is int
        and "improved" in metadata
        and isinstance(branch, dict)
        and all(type(step) is int for step in branch.values())
    )


def best_of(files: list[File], count: int | None = None) -> list[File]:
    """Sort the checkpoints that an evaluation has judged, the best first, and return the first `count` of them.

    The first one is the last that improved the monitor. The others follow by value. Default of `count`: all.
    """
    scored = [(score, i) for i, (_, index) in enumerate(files) if (score := _score(index)) is not None]
    improved = next((i for _, i in reversed(scored) if files[i][1]["improved"]), None)
    by_score = sorted(scored) if count is None else nsmallest(count, scored)
    order = [i for _, i in by_score if i != improved]
    return [files[i] for i in (order if improved is None else [improved, *order])][:count]


def superfluous(policy: Policy, files: list[File], spared: Iterable[Path | None] = ()) -> tuple[list[File], list[File]]:
    """Return the files to delete, and the best files.

    The policy keeps the last files and the best files. The spared files stay too.

    >>> index = {"monitor_value": None, "monitor_mode": "min", "improved": False}
    >>> files = [(Path(name), index) for name in "abc"]
    >>> superfluous(Policy("{step}", keep_last=1), files, [Path("a")])
    ([(...Path('b'), {...})], [])
    """
    older = [] if policy.keep_last is None else files[: -policy.keep_last]
    if not older:
        return [], []
    best = best_of(files, policy.keep_best)
    kept = {os.path.realpath(path) for path in [*spared, *(path for path, _ in best)] if path is not None}
    return [file for file in older if os.path.realpath(file[0]) not in kept], best


def _score(index: Metadata) -> float | None:
    """Return the value of the monitor with the sign such that smaller is better. None for a missing value and NaN."""
    value = index["monitor_value"]
    if value is None or value != value:
        return None
    return float(value if index["monitor_mode"] == "min" else -value)


def _patterns(template: str) -> list[re.Pattern[str]]:
    """Return one pattern for each component of the absolute paths that a template produces."""
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
    """Yield the paths under a folder whose components match the patterns, one pattern for each level."""
    first, *rest = patterns
    with suppress(FileNotFoundError), os.scandir(folder) as entries:  # another process deletes, too
        for entry in entries:
            if first.fullmatch(entry.name) and not rest:
                yield folder / entry.name
            elif first.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield from _matching(folder / entry.name, rest)
