"""Resolve `resume=` to a checkpoint, for every kind of source."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from ..core._context import with_context
from ..core._errors import CheckpointError, located
from ..core._files import file_sha256
from ..core._signature import name_of
from ..core._user_path import user_path
from ..store._bundle import SCHEMA, is_bundle, read_bundle
from ..store._checkpoint import Checkpoint, Metadata, load, peek
from ..store._safetensors import is_foreign
from ._policy import Policy
from ._retention import File, best_of, is_sound, of_lineage, owned
from ._writer import Writer

__all__ = ["check_source", "resolved"]

_LOG = logging.getLogger("mlx_fp.loop")

Resolved: TypeAlias = tuple[Checkpoint | None, str | None]
"""A checkpoint, and the kind of its source in one word. For example, "latest" or "bundle"."""


def resolved(source: object, trainer: object, monitor: str, writer: Writer | None) -> Resolved:
    """Return the checkpoint for `resume=` and the kind of the source, or `(None, None)` for a run that starts anew.

    Where the source is the file of the latest state, the checkpoint has the path of the numbered file with the same
    state.

    Args:
        source: One of: the path of a checkpoint or of a run bundle; "latest" or "best"; a Checkpoint; a bundle; None; a
            function of some of `trainer` and `monitor`, which returns one of these.
        trainer: The trainer, for a function.
        monitor: The name of the monitor, for a function.
        writer: The files of the trainer. None for a trainer without `checkpoints`.
    """
    checkpoint, kind = _resolve(source, trainer, monitor, writer)
    return (checkpoint if checkpoint is None or writer is None else _with_numbered_path(checkpoint, writer)), kind


def _resolve(source: object, trainer: object, monitor: str, writer: Writer | None) -> Resolved:
    check_source(source)
    if callable(source):
        call = with_context(source, offers=("trainer", "monitor"), values=0, what="resume function")
        with located(resume_function=name_of(source)):
            result = call(trainer=trainer, monitor=monitor)
        checkpoint, kind = _resolve(result, trainer, monitor, writer)
        return checkpoint, "function" if kind else None
    if source is None:
        return None, None
    if isinstance(source, Checkpoint):
        return source, "checkpoint"
    if isinstance(source, Mapping):
        return _load_from_bundle(source, Path(source.get("folder", ""))), "bundle"
    assert isinstance(source, (str, os.PathLike))
    if source in ("latest", "best"):
        return _load_from_policy(str(source), writer), str(source)
    path = user_path(source)
    if path.suffix == ".json" or is_bundle(path):  # a damaged or missing bundle is recognised by its name
        return _load_from_bundle(read_bundle(path), path.parent), "bundle"
    return load(path), "path"


def check_source(source: object) -> None:
    """Raise TypeError for a value that `resume=` does not take.

    >>> check_source(3)
    Traceback (most recent call last):
    TypeError: resume is a path, 'latest', 'best', a checkpoint, a bundle or a function; got 3
    """
    if not (source is None or callable(source) or isinstance(source, (str, os.PathLike, Checkpoint, Mapping))):
        raise TypeError(f"resume is a path, 'latest', 'best', a checkpoint, a bundle or a function; got {source!r}")


def _with_numbered_path(checkpoint: Checkpoint, writer: Writer) -> Checkpoint:
    """Replace the path of the latest file by the path of the numbered file with the same state, if that file exists."""
    latest = writer.policy.latest_path
    if latest is None or checkpoint.path is None or os.path.realpath(checkpoint.path) != os.path.realpath(latest):
        return checkpoint
    state = {name: checkpoint.metadata.get(name) for name in ("run", "step", "next_epoch")}
    paths = [path for path, index in writer.files() if state.items() <= index.items()]
    return replace(checkpoint, path=paths[0]) if paths else checkpoint


def _load_from_bundle(bundle: Metadata, folder: Path) -> Checkpoint:
    """Load the checkpoint that a bundle names, after a check of its SHA-256."""
    if bundle.get("schema") != SCHEMA:
        names = ", ".join(map(repr, bundle)) or "nothing"
        raise TypeError(f"resume takes a bundle, as read_bundle gives it, or the path of one; got a dict of {names}")
    reference = bundle.get("checkpoint")
    if not isinstance(reference, Mapping) or not all(
        isinstance(reference.get(name), str) for name in ("path", "sha256")
    ):
        raise CheckpointError("the bundle names no checkpoint: write it with save_bundle(path, checkpoint=…)(report)")
    path = folder / reference["path"]
    if file_sha256(path) != reference["sha256"]:
        raise CheckpointError(f"{path} is not the checkpoint that the bundle names: its SHA-256 differs")
    return load(path)


def _load_from_policy(which: str, writer: Writer | None) -> Checkpoint | None:
    """Load the newest or the best undamaged file. Skip damaged files with a warning."""
    if writer is None:
        raise ValueError(f"resume={which!r} needs a trainer with checkpoints(…)")
    policy, damaged = writer.policy, set[Path]()
    for lineage in _lineages(writer.files()):
        candidates = best_of(lineage) if which == "best" else lineage[::-1]
        checkpoint = _load_first_undamaged(candidates or lineage[::-1], damaged)
        if checkpoint is None or checkpoint.path is None:
            continue
        if not candidates:
            raise CheckpointError(
                f"there is no best checkpoint in {policy.folder} yet: its files hold states within an epoch, which no "
                f"evaluation has judged. resume='latest' resumes from the newest, {checkpoint.path}"
            )
        _warn_of_damage(policy, checkpoint.path, damaged)
        return checkpoint
    unreadable = [path for path in owned(policy) if not _belongs_elsewhere(path, policy)]
    if unreadable:
        names = ", ".join(sorted(path.name for path in unreadable)[:8])
        raise CheckpointError(f"no {which} checkpoint in {policy.folder} can be read: {names}")
    _LOG.warning("there is no checkpoint in %s yet: the run starts anew", policy.folder)
    return None


def _lineages(files: list[File]) -> Iterator[list[File]]:
    """Yield the files of each run and its ancestors, the newest run first.

    All runs are needed, because a damaged header may name any run and any step.
    """
    while files:
        lineage = of_lineage(files, files[-1][1])
        yield lineage
        yielded = {path for path, _ in lineage}
        files = [file for file in files if file[0] not in yielded]


def _load_first_undamaged(files: list[File], damaged: set[Path]) -> Checkpoint | None:
    """Load the first undamaged file. Warn about the damaged files before it, and add them to `damaged`."""
    for path, _ in files:
        try:
            return load(path)
        except CheckpointError as error:
            _LOG.warning("%s; the checkpoint before it is used", error)
            damaged.add(path)
    return None


def _warn_of_damage(policy: Policy, chosen: Path, reported: set[Path]) -> None:
    """Warn about each damaged file that is newer than the chosen one, unless it is reported already."""
    for path in owned(policy):
        if path not in {chosen, *reported} and path.stat().st_mtime_ns >= chosen.stat().st_mtime_ns:
            try:
                load(path)
            except CheckpointError as error:
                _LOG.warning("%s; %s is used", error, chosen.name)


def _belongs_elsewhere(path: Path, policy: Policy) -> bool:
    """Tell whether a file is no checkpoint of this policy: weights of another program, or a file of another run."""
    metadata = peek(path)
    if metadata is None:
        return is_foreign(path)
    if "cursor" in metadata and not is_sound(metadata):  # the file is from a run, but its metadata are invalid
        return False
    return not policy.owns(path, metadata)
