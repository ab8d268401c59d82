"""Where a run goes on from: every kind of source gives one checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core._errors import CheckpointError
from ..core._signature import named
from ..core._user_path import user_path
from ..store._bundle import SCHEMA, is_bundle, read_bundle
from ..store._checkpoint import Checkpoint, load, peek
from ..store._files import digest
from ..store._safetensors import is_foreign
from ._policy import Policy
from ._retention import File, best_of, is_sound, of_line, owned
from ._writer import Writer

__all__ = ["resolved"]

_LOG = logging.getLogger("mlx_fp.loop")


def resolved(source: Any, trainer: Any, monitor: str, writer: Writer | None) -> tuple[Checkpoint | None, str | None]:
    """Return the checkpoint that `resume=` means, and its kind in a word; None where a run starts anew.

    A path, of a checkpoint or of a run bundle; `"latest"` or `"best"` of the trainer's checkpoints; a checkpoint; a
    bundle; a function of what it names of `trainer` and `monitor`, which gives one of these; or None.
    """
    if callable(source):
        call = named(source, offers=("trainer", "monitor"), values=0, what="resume function")
        found, kind = resolved(call(trainer=trainer, monitor=monitor), trainer, monitor, writer)
        return found, "function" if kind else None
    if source is None:
        return None, None
    if isinstance(source, Checkpoint):
        return source, "checkpoint"
    if isinstance(source, Mapping):
        return _of_bundle(source, Path(source.get("folder", ""))), "bundle"
    if source in ("latest", "best"):
        return _of_policy(source, writer), source
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"resume is a path, 'latest', 'best', a checkpoint, a bundle or a function; got {source!r}")
    path = user_path(source)
    if path.suffix == ".json" or is_bundle(path):  # by its name, too, where it is damaged or not there
        return _of_bundle(read_bundle(path), path.parent), "bundle"
    return load(path), "path"


def _of_bundle(bundle: Mapping[str, Any], folder: Path) -> Checkpoint:
    if bundle.get("schema") != SCHEMA:
        keys = ", ".join(map(repr, bundle)) or "nothing"
        raise TypeError(f"resume takes a bundle, as read_bundle gives it, or the path of one; got a dict of {keys}")
    told = bundle.get("checkpoint")
    if not isinstance(told, Mapping) or not all(isinstance(told.get(name), str) for name in ("path", "sha256")):
        raise CheckpointError("the bundle names no checkpoint: write it with save_bundle(path, checkpoint=…)(report)")
    path = folder / told["path"]
    if digest(path) != told["sha256"]:
        raise CheckpointError(f"{path} is not the checkpoint that the bundle names: its SHA-256 is another")
    return load(path)


def _of_policy(which: str, writer: Writer | None) -> Checkpoint | None:
    """Load the newest or best file that is whole; a damaged one is passed over with a warning."""
    if writer is None:
        raise ValueError(f"resume={which!r} is of a trainer with checkpoints(…)")
    policy, damaged = writer.policy, set()
    for path, _ in _in_order(which, writer.files()):
        try:
            found = load(path)
        except CheckpointError as error:
            _LOG.warning("%s; the one before it is used", error)
            damaged.add(path)
            continue
        _warn_of_damage(policy, path, damaged)
        return found
    left = [path for path in owned(policy) if not _is_of_another(path, policy)]
    if left:
        names = ", ".join(sorted(path.name for path in left)[:8])
        raise CheckpointError(f"no {which} checkpoint in {policy.folder} can be read: {names}")
    _LOG.warning("there is no checkpoint in %s yet: the run starts anew", policy.folder)
    return None


def _in_order(which: str, files: list[File]) -> Iterator[File]:
    """Yield the files to try, the newest run's first: a damaged header may name any run and any step."""
    while files:
        mine = of_line(files, files[-1][1])
        yield from best_of(mine) if which == "best" else reversed(mine)
        tried = {path for path, _ in mine}
        files = [file for file in files if file[0] not in tried]


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
