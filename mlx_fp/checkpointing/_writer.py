"""Write the checkpoints of a run by its policy, and delete those that the policy does not keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ..core._files import link_or_copy, remove_leftovers, write_whole
from ..core._threads import begin_thread
from ..core._types import Params, State
from ..data import Cursor
from ..store._bundle import bundle, save_bundle
from ..store._checkpoint import Metadata, prepare_save
from ..store._folder_lock import Lock
from ._listing import Listing
from ._policy import Policy
from ._retention import File, is_newest
from ._run_folder import RunFolder

__all__ = ["RunPosition", "Writer", "Written"]


Written: TypeAlias = tuple[Path, Metadata, tuple[str, ...]]
"""A checkpoint on disk: its path, its metadata, and the paths of the checkpoints that were deleted after it."""


class RunPosition(NamedTuple):
    """The position of a run that a checkpoint holds."""

    step: int
    cursor: Cursor
    evaluations: int
    """The number of evaluations so far."""
    ended: str | None
    """The reason of the hook that ended the run. None for a run that may continue."""


class Writer:
    """Write the files of one run. Inside the context the run has the lock of the folder."""

    def __init__(self, policy: Policy, folder: RunFolder | None = None) -> None:
        self.policy = policy
        self.folder = folder
        """The other files of the run. None without `out`."""
        self.resumed_from: Path | None = None
        self.step = 0
        """The step of the newest checkpoint."""
        self._position: RunPosition | None = None
        self._on_disk: tuple[int, RunPosition | None] = 0, None
        """The step and the position of the newest checkpoint that is surely on disk."""
        self._written: dict[str, None] = {}
        self._listing = Listing(policy)
        self._cleaned_folders: set[Path] = set()
        self._is_tidy = False
        self._lock = Lock(policy.folder)
        self._worker: ThreadPoolExecutor | None = None
        self._writing: Future[Written] | None = None
        self._starting = False

    def __enter__(self) -> Writer:
        """Lock the folder, and delete the leftovers of killed writers. An error names another holder of the lock."""
        try:
            self._lock.take()
            self._remove_leftovers_once(self.policy.folder)
        except BaseException:  # also for an interrupt, because Python then does not call `__exit__`
            self._lock.give_back()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        """Wait for the current write, and release the lock of the folder."""
        with ExitStack() as closing:
            closing.callback(self._lock.give_back)
            if self._worker is not None:
                closing.callback(self._worker.shutdown)
            if self.folder is not None:
                closing.callback(self.folder.close)

    @property
    def has_unread(self) -> bool:
        """Whether a checkpoint is being written, or is complete and `poll` has not returned it."""
        return self._writing is not None

    @property
    def written(self) -> tuple[str, ...]:
        """The checkpoints that this process wrote and did not delete, the newest last."""
        return tuple(self._written)

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written now."""
        return self._starting or (self._writing is not None and not self._writing.done())

    def files(self) -> list[File]:
        """List the checkpoints of the policy. Each header is read once only."""
        return self._listing.read()

    def begin(self, *, resumes: bool) -> None:
        """Begin a run at its first step. `resumes` tells whether it was to continue and found no checkpoint."""
        if self.folder is not None:
            self.folder.begin(resumes=resumes)

    def resume_from(self, path: Path | None, position: RunPosition) -> None:
        """Continue from a checkpoint with this position. The writer never deletes that checkpoint."""
        if self.folder is not None:
            self.folder.continue_from(path, position.step)
        self.resumed_from, self.step, self._position = path, position.step, position
        self._on_disk = position.step, position
        self._complete_latest()

    def holds(self, position: RunPosition) -> bool:
        """Tell whether the newest checkpoint holds this position."""
        return self._position == position

    def start(
        self,
        path: Path,
        params: Params,
        opt_state: State,
        metadata: Metadata,
        position: RunPosition,
        select: object = None,
    ) -> None:
        """Start to write a checkpoint of the current arrays. `poll` returns the result.

        Args:
            path: The file.
            params: The parameters.
            opt_state: The optimiser state.
            metadata: The metadata of the run.
            position: The position of the run.
            select: The parameters to save, as `fp.select` takes them. Default: all.
        """
        self._starting = True
        if self.folder is not None:
            self.folder.steps.flush()
        metadata = {**metadata, "file": self.policy.name_of(path)}
        write = prepare_save(path, params, opt_state=opt_state, metadata=metadata, select=select, swept=True)

        def work() -> Written:
            # An earlier run may have been killed before it deleted its superfluous files.
            leftover = () if self._is_tidy else self._delete_superfluous(metadata)
            self._remove_leftovers_once(path.parent)
            write()
            self._update_latest(path)
            self._is_tidy = True
            self._listing.add(path, metadata)
            return path, metadata, leftover + self._delete_superfluous(metadata, path)

        self._writing = self._worker_thread().submit(work) if self.policy.background else _run_now(work)
        self._starting = False
        self.step, self._position = position.step, position

    def failure(self) -> BaseException | None:
        """Wait for the current write, and return its error or None. `poll` does not raise that error again."""
        error = None if self._writing is None else self._writing.exception()
        if error is not None:
            self._writing = None
            self.step, self._position = self._on_disk
        return error

    def poll(self, *, wait: bool) -> Written | None:
        """Return the checkpoint that was written since the last call, or None. Raise the error of a failed write.

        With `wait`, the call waits for the current write.
        """
        writing = self._writing
        if writing is None or not (wait or writing.done()):
            return None
        if (error := self.failure()) is not None:
            raise error
        self._writing, self._on_disk = None, (self.step, self._position)
        path, metadata, deleted = writing.result()
        for name in (*deleted, str(path)):
            self._written.pop(name, None)
        self._written[str(path)] = None
        return path, metadata, deleted

    def bundle(self, report: Any) -> None:
        """Write the run bundle if the policy has one. It refers to the newest checkpoint, if that file exists."""
        path = self.policy.bundle_path
        if path is None:
            return
        newest = self.written[-1] if self.written else self.resumed_from
        if self._writing is not None and wait([self._writing]) and self._writing.exception() is None:
            newest = self._writing.result()[0]
        exists = newest is not None and os.path.exists(newest)
        values = report.to_dict()
        save_bundle(path, checkpoint=newest if exists else None, user=self.policy.user)(values)
        if self.folder is not None:
            self.folder.write_page(bundle(values, user=self.policy.user))

    def _remove_leftovers_once(self, folder: Path) -> None:
        """Delete the leftovers of killed writers in a folder, once for each folder."""
        if folder not in self._cleaned_folders and folder.is_dir():
            remove_leftovers(folder)
        self._cleaned_folders.add(folder)

    def _worker_thread(self) -> ThreadPoolExecutor:
        self._worker = self._worker or ThreadPoolExecutor(1, "mlx_fp-checkpoint", initializer=begin_thread)
        return self._worker

    def _complete_latest(self) -> None:
        """Update the latest file, because a killed run may have written its checkpoint without this update."""
        if self.policy.latest and self.resumed_from is not None and is_newest(self.resumed_from, self.files()):
            self._update_latest(self.resumed_from)

    def _update_latest(self, newest: Path) -> None:
        """Make the latest file a second name of the newest file, before any older file is deleted."""
        latest = self.policy.latest_path
        if latest is not None and not (latest.exists() and latest.samefile(newest)):
            write_whole(latest, lambda new: link_or_copy(newest, new))

    def _delete_superfluous(self, metadata: Metadata, newest: Path | None = None) -> tuple[str, ...]:
        return self._listing.delete_superfluous(metadata, (newest, self.resumed_from))


def _run_now(work: Callable[[], Written]) -> Future[Written]:
    """Run the work in the calling thread, and return a finished future."""
    future: Future[Written] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future
