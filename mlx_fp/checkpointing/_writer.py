"""Writes the checkpoints of a run by its policy, and deletes those that it need not keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from ..core._threads import begin_thread
from ..data import Cursor
from ..store._bundle import save_bundle
from ..store._checkpoint import prepare_save
from ..store._files import link_or_copy, remove_leftovers, write_whole
from ..store._folder_lock import Lock
from ._listing import Listing
from ._policy import Policy
from ._retention import File, is_newest

__all__ = ["Held", "Writer", "Written"]


Written = tuple[Path, dict[str, Any], tuple[str, ...]]
"""A checkpoint on disk: its path, its metadata, and the names of those that were deleted after it."""


class Held(NamedTuple):
    """Which state of a run a checkpoint holds."""

    step: int
    cursor: Cursor
    evaluations: int
    """How many evaluations there were."""
    ended: str | None
    """The reason for which a hook has ended the run."""


class Writer:
    """The files of one run; within it as a context the folder is the run's own."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.resumed_from: Path | None = None
        self.step = 0
        """The step of the newest checkpoint."""
        self._held: Held | None = None
        self._on_disk: tuple[int, Held | None] = 0, None
        """The step of the newest checkpoint that is known to be on disk, and what that holds of the run."""
        self._written: dict[str, None] = {}
        self._listing = Listing(policy)
        self._swept: set[Path] = set()
        self._tidy = False
        self._lock = Lock(policy.folder)
        self._worker: ThreadPoolExecutor | None = None
        self._writing: Future[Written] | None = None

    def __enter__(self) -> Writer:
        """Take the folder, or raise with who holds it; what a killed writer left half-written is deleted."""
        try:
            self._lock.take()
            self._sweep(self.policy.folder)
        except BaseException:  # an interrupt, too: `__exit__` is not called then
            self._lock.give_back()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        """Wait for what is being written, and give the folder back."""
        try:
            if self._worker is not None:
                self._worker.shutdown()
        finally:
            self._lock.give_back()

    @property
    def written(self) -> tuple[str, ...]:
        """The checkpoints that this process wrote and has not deleted since, the newest last."""
        return tuple(self._written)

    def files(self) -> list[File]:
        """List what there is of the policy; no header is read twice."""
        return self._listing.read()

    def take_up(self, path: Path | None, held: Held) -> None:
        """Go on from a checkpoint, which is not deleted, and which holds this of the run."""
        self.resumed_from, self.step, self._held = path, held.step, held
        self._on_disk = held.step, held
        self._catch_up()

    def holds(self, held: Held) -> bool:
        """Tell whether the newest checkpoint holds this of the run."""
        return self._held == held

    def start(
        self, path: Path, params: Any, opt_state: Any, told: dict[str, Any], held: Held, kept: Any = None
    ) -> None:
        """Begin to write a checkpoint, of the bytes as they are now, with the parameters that `kept` chooses.

        `done` gives what came of it.
        """
        told = {**told, "file": self.policy.name_of(path)}
        write = prepare_save(path, params, opt_state=opt_state, metadata=told, select=kept, swept=True)

        def work() -> Written:
            left = () if self._tidy else self._retain(told)  # by runs that were killed as they deleted
            self._sweep(path.parent)
            write()
            self._show(path)
            self._tidy = True
            self._listing.add(path, told)
            return path, told, left + self._retain(told, path)

        self._writing = self._thread().submit(work) if self.policy.background else _now(work)
        self.step, self._held = held.step, held

    def failure(self) -> BaseException | None:
        """Wait for what is being written; return why it failed, if it did. `done` does not raise that any more."""
        fault = None if self._writing is None else self._writing.exception()
        if fault is not None:
            self._writing = None
            self.step, self._held = self._on_disk
        return fault

    def done(self, *, wait: bool) -> Written | None:
        """Return what was written since last asked, after waiting for it if told to; an error of it comes out."""
        writing = self._writing
        if writing is None or not (wait or writing.done()):
            return None
        if (fault := self.failure()) is not None:
            raise fault
        self._writing, self._on_disk = None, (self.step, self._held)
        path, told, deleted = writing.result()
        for name in (*deleted, str(path)):
            self._written.pop(name, None)
        self._written[str(path)] = None
        return path, told, deleted

    def bundle(self, report: Any) -> None:
        """Write the run bundle where the policy asks for one; it names the newest checkpoint, if that is there."""
        path = self.policy.bundle_path
        if path is None:
            return
        newest = self.written[-1] if self.written else self.resumed_from
        if self._writing is not None and wait([self._writing]) and self._writing.exception() is None:
            newest = self._writing.result()[0]
        there = newest is not None and os.path.exists(newest)
        save_bundle(path, checkpoint=newest if there else None, user=self.policy.user)(report)

    def _sweep(self, folder: Path) -> None:
        """Delete what killed writers left half-written in a folder, once."""
        if folder not in self._swept and folder.is_dir():
            remove_leftovers(folder)
        self._swept.add(folder)

    def _thread(self) -> ThreadPoolExecutor:
        self._worker = self._worker or ThreadPoolExecutor(1, "mlx_fp-checkpoint", initializer=begin_thread)
        return self._worker

    def _catch_up(self) -> None:
        """Do the last thing that a run which was killed may not have done with the file that this one goes on from."""
        if self.policy.latest and self.resumed_from is not None and is_newest(self.resumed_from, self.files()):
            self._show(self.resumed_from)

    def _show(self, newest: Path) -> None:
        """Have the file of the latest state hold what the newest file does, before an older one is deleted."""
        latest = self.policy.latest_path
        if latest is not None and not (latest.exists() and latest.samefile(newest)):
            write_whole(latest, lambda new: link_or_copy(newest, new))

    def _retain(self, told: dict[str, Any], newest: Path | None = None) -> tuple[str, ...]:
        return self._listing.delete_superfluous(told, (newest, self.resumed_from))


def _now(work: Callable[[], Written]) -> Future[Written]:
    """Do the work at once, as if in a thread."""
    done: Future[Written] = Future()
    try:
        done.set_result(work())
    except Exception as error:
        done.set_exception(error)
    return done
