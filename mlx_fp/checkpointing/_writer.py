"""Writes the checkpoints of a run by its policy, and deletes those that it need not keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ..core._threads import begin_thread
from ..data import Cursor
from ..store._checkpoint import prepared
from ..store._files import sweep
from ..store._folder_lock import Lock
from ._policy import Policy
from ._retention import File, Seen, kept, listed, of_line

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
        self.written: list[str] = []
        self._seen: Seen = {}
        self._tidy = False
        self._lock = Lock(policy.folder)
        self._worker: ThreadPoolExecutor | None = None
        self._writing: Future[Written] | None = None

    def __enter__(self) -> Writer:
        """Take the folder, or raise with who holds it; what a killed writer left half-written is deleted."""
        try:
            self._lock.take()
            sweep(self.policy.folder)
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

    def files(self) -> list[File]:
        """List what there is of the policy; no header is read twice."""
        return listed(self.policy, self._seen)

    def take_up(self, path: Path | None, held: Held) -> None:
        """Go on from a checkpoint, which is not deleted, and which holds this of the run."""
        self.resumed_from, self.step, self._held = path, held.step, held
        self._on_disk = held.step, held

    def holds(self, held: Held) -> bool:
        """Tell whether the newest checkpoint holds this of the run."""
        return self._held == held

    def start(
        self, path: Path, params: Any, opt_state: Any, told: dict[str, Any], held: Held, kept: Any = None
    ) -> None:
        """Begin to write a checkpoint, of the bytes as they are now, with the parameters that `kept` chooses.

        `done` gives what came of it.
        """
        write = prepared(path, params, opt_state=opt_state, metadata=told, select=kept)

        def work() -> Written:
            left = () if self._tidy else self._retain(told)  # by runs that were killed as they deleted
            write()
            self._tidy = True
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
        again = {*deleted, str(path)}
        self.written = [name for name in self.written if name not in again] + [str(path)]
        return path, told, deleted

    def _thread(self) -> ThreadPoolExecutor:
        self._worker = self._worker or ThreadPoolExecutor(1, "mlx_fp-checkpoint", initializer=begin_thread)
        return self._worker

    def _retain(self, told: dict[str, Any], newest: Path | None = None) -> tuple[str, ...]:
        if self.policy.keep_last is None:
            return ()
        files = of_line(self.files(), told)
        stay: set[Path | None] = {newest, *kept(self.policy, files)}
        deleted = [path for path, _ in files if path not in stay and not _is_same(path, self.resumed_from)]
        for path in deleted:
            path.unlink(missing_ok=True)
        return tuple(map(str, deleted))


def _now(work: Callable[[], Written]) -> Future[Written]:
    """Do the work at once, as if in a thread."""
    done: Future[Written] = Future()
    try:
        done.set_result(work())
    except Exception as error:
        done.set_exception(error)
    return done


def _is_same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)
