"""Where a run goes on from: every kind of source gives one checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core._errors import CheckpointError, located
from ..core._signature import name_of, with_context
from ..core._user_path import user_path
from ..store._bundle import SCHEMA, is_bundle, read_bundle
from ..store._checkpoint import Checkpoint, load, peek
from ..store._files import file_sha256
from ..store._safetensors import is_foreign
from ._policy import Policy
from ._retention import File, best_of, is_sound, of_line, owned
from ._writer import Writer

__all__ = ["check_source", "resolved"]

_LOG = logging.getLogger("mlx_fp.loop")


def resolved(source: Any, trainer: Any, monitor: str, writer: Writer | None) -> tuple[Checkpoint | None, str | None]:
    """Return the checkpoint that `resume=` means, and its kind in a word; None where a run starts anew.

    A path, of a checkpoint or of a run bundle; `"latest"` or `"best"` of the trainer's checkpoints; a checkpoint; a
    bundle; a function of what it names of `trainer` and `monitor`, which gives one of these; or None. The file of the
    latest state stands for the file of which it is a second name.
    """
    found, kind = _resolved(source, trainer, monitor, writer)
    return (found if found is None or writer is None else _under_own_name(found, writer)), kind


def _resolved(source: Any, trainer: Any, monitor: str, writer: Writer | None) -> tuple[Checkpoint | None, str | None]:
    check_source(source)
    if callable(source):
        call = with_context(source, offers=("trainer", "monitor"), values=0, what="resume function")
        with located(resume_function=name_of(source)):
            given = call(trainer=trainer, monitor=monitor)
        found, kind = _resolved(given, trainer, monitor, writer)
        return found, "function" if kind else None
    if source is None:
        return None, None
    if isinstance(source, Checkpoint):
        return source, "checkpoint"
    if isinstance(source, Mapping):
        return _of_bundle(source, Path(source.get("folder", ""))), "bundle"
    if source in ("latest", "best"):
        return _of_policy(source, writer), source
    path = user_path(source)
    if path.suffix == ".json" or is_bundle(path):  # by its name, too, where it is damaged or not there
        return _of_bundle(read_bundle(path), path.parent), "bundle"
    return load(path), "path"


def check_source(source: Any) -> None:
    """Raise TypeError for a value from which no run can go on.

    >>> check_source(3)
    Traceback (most recent call last):
    TypeError: resume is a path, 'latest', 'best', a checkpoint, a bundle or a function; got 3
    """
    known = (str, os.PathLike, Checkpoint, Mapping)
    if not (source is None or callable(source) or isinstance(source, known)):
        raise TypeError(f"resume is a path, 'latest', 'best', a checkpoint, a bundle or a function; got {source!r}")


def _under_own_name(found: Checkpoint, writer: Writer) -> Checkpoint:
    """Return a checkpoint that is the latest with the path of its own, where that is there."""
    latest = writer.policy.latest_path
    if latest is None or found.path is None or os.path.realpath(found.path) != os.path.realpath(latest):
        return found
    known = {name: found.metadata.get(name) for name in ("run", "step", "next_epoch")}
    own = [path for path, told in writer.files() if known.items() <= told.items()]
    return replace(found, path=own[0]) if own else found


def _of_bundle(bundle: Mapping[str, Any], folder: Path) -> Checkpoint:
    if bundle.get("schema") != SCHEMA:
        keys = ", ".join(map(repr, bundle)) or "nothing"
        raise TypeError(f"resume takes a bundle, as read_bundle gives it, or the path of one; got a dict of {keys}")
    told = bundle.get("checkpoint")
    if not isinstance(told, Mapping) or not all(isinstance(told.get(name), str) for name in ("path", "sha256")):
        raise CheckpointError("the bundle names no checkpoint: write it with save_bundle(path, checkpoint=…)(report)")
    path = folder / told["path"]
    if file_sha256(path) != told["sha256"]:
        raise CheckpointError(f"{path} is not the checkpoint that the bundle names: its SHA-256 is another")
    return load(path)


def _of_policy(which: str, writer: Writer | None) -> Checkpoint | None:
    """Load the newest or best file that is whole; a damaged one is passed over with a warning."""
    if writer is None:
        raise ValueError(f"resume={which!r} is of a trainer with checkpoints(…)")
    policy, damaged = writer.policy, set[Path]()
    for line in _lines(writer.files()):
        wanted = best_of(line) if which == "best" else line[::-1]
        found = _first_whole(wanted or line[::-1], damaged)
        if found is None or found.path is None:
            continue
        if not wanted:
            raise CheckpointError(
                f"there is no best checkpoint in {policy.folder} yet: its files hold states within an epoch, which no "
                f"evaluation has judged. resume='latest' goes on from the newest, {found.path}"
            )
        _warn_of_damage(policy, found.path, damaged)
        return found
    left = [path for path in owned(policy) if not _is_of_another(path, policy)]
    if left:
        names = ", ".join(sorted(path.name for path in left)[:8])
        raise CheckpointError(f"no {which} checkpoint in {policy.folder} can be read: {names}")
    _LOG.warning("there is no checkpoint in %s yet: the run starts anew", policy.folder)
    return None


def _lines(files: list[File]) -> Iterator[list[File]]:
    """Yield the files of each line of runs, the newest run's first: a damaged header may name any run and any step."""
    while files:
        line = of_line(files, files[-1][1])
        yield line
        tried = {path for path, _ in line}
        files = [file for file in files if file[0] not in tried]


def _first_whole(files: list[File], damaged: set[Path]) -> Checkpoint | None:
    """Load the first file that is whole, and warn of those before it, which are added to the damaged ones."""
    for path, _ in files:
        try:
            return load(path)
        except CheckpointError as error:
            _LOG.warning("%s; the one before it is used", error)
            damaged.add(path)
    return None


def _warn_of_damage(policy: Policy, chosen: Path, known: set[Path]) -> None:
    """Say so where a file that is younger than the one chosen is damaged, and that is not known yet."""
    for path in owned(policy):
        if path not in {chosen, *known} and path.stat().st_mtime_ns >= chosen.stat().st_mtime_ns:
            try:
                load(path)
            except CheckpointError as error:
                _LOG.warning("%s; %s is used", error, chosen.name)


def _is_of_another(path: Path, policy: Policy) -> bool:
    """Whether a file is no checkpoint of this policy: weights of another making, or of another run."""
    told = peek(path)
    if told is None:
        return is_foreign(path)
    if "cursor" in told and not is_sound(told):  # of a run, and odd
        return False
    return not policy.owns(path, told)
