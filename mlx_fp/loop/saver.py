"""Writes the checkpoints of a run by its policy, and deletes those that it need not keep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..store.checkpoint import peek, save
from ..store.lock import Lock
from .policy import Policy

__all__ = ["Saver", "listed"]


class Saver:
    """The files of one run; within it as a context the folder is the run's own."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.resumed_from: Path | None = None
        self.written: list[str] = []
        self._lock = Lock(policy.folder)

    def __enter__(self) -> Saver:
        """Take the folder, or raise with who holds it; what a killed writer left half-written is deleted."""
        self._lock.take()
        for left in self.policy.folder.rglob(".*.tmp"):
            left.unlink(missing_ok=True)
        return self

    def __exit__(self, *raised: object) -> None:
        """Give the folder back."""
        self._lock.give_back()

    def path(self, told: dict[str, Any]) -> Path:
        """Return where the state that the metadata tell of goes."""
        values = {**told, "epoch": max(told["epoch"], 0), "monitor": told["monitor_value"]}
        made = self.policy.file({name: _shown(values.get(name)) for name in _NAMES})
        return made if made.suffix in (".safetensors", ".npz") else made.with_name(made.name + ".safetensors")

    def write(self, path: Path, params: Any, opt_state: Any, told: dict[str, Any]) -> tuple[str, ...]:
        """Write a checkpoint, and return the names of those deleted after it."""
        save(path, params, opt_state=opt_state, metadata=told)
        self.written = [name for name in self.written if name != str(path)] + [str(path)]
        deleted = self._retain(path)
        self.written = [name for name in self.written if name not in deleted]
        return deleted

    def _retain(self, newest: Path) -> tuple[str, ...]:
        if self.policy.keep_last is None:
            return ()
        files = listed(self.policy)
        best = sorted((f for f in files if _rank(f[1]) is not None), key=lambda f: _rank(f[1]) or 0.0)
        kept = {newest, *(path for path, _ in files[-self.policy.keep_last :])}
        kept |= {path for path, _ in best[: self.policy.keep_best]}
        deleted = [path for path, _ in files if path not in kept and not _is_same(path, self.resumed_from)]
        for path in deleted:
            path.unlink(missing_ok=True)
        return tuple(map(str, deleted))


_NAMES = ("epoch", "next_epoch", "step", "monitor", "monitor_name", "epoch_loss", "improved")


def listed(policy: Policy) -> list[tuple[Path, dict[str, Any]]]:
    """List the checkpoints of a policy with their metadata, read off the folder, oldest first; no damaged headers."""
    found = []
    folder = policy.folder
    paths = [p for p in folder.rglob("*") if p.suffix in (".safetensors", ".npz") and not p.name.startswith(".")]
    for path in paths if folder.is_dir() else []:
        told = peek(path)
        if told is not None and told.get("policy") == policy.label:
            found.append((path, told))
    return sorted(found, key=lambda file: (file[1]["step"], file[1]["next_epoch"], str(file[0])))


def _rank(told: dict[str, Any]) -> float | None:
    """Return what orders checkpoints by their monitor, the best first; None for those within an epoch."""
    value = told["monitor_value"]
    if value is None or value != value or told["cursor"]["index"]:
        return None
    return float(value if told["monitor_mode"] == "min" else -value)


def _is_same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


def _shown(value: Any) -> Any:
    return float("nan") if value is None else value.replace(os.sep, "_") if isinstance(value, str) else value
