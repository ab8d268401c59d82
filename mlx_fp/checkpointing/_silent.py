"""A writer that keeps the schedule of a run's files and writes none: that of every process but the first."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ..core._types import Params, State
from ..store._checkpoint import Metadata
from ._policy import Policy
from ._retention import File, in_order, indexed, of_lineage, superfluous
from ._run_folder import RunFolder
from ._writer import RunPosition, Writer, Written

__all__ = ["SilentWriter", "writer_of"]


def writer_of(policy: Policy | None, folder: Path | None, rank: int) -> Writer | None:
    """Return the writer of the files of a run; None for a run without files. Only the process of rank 0 writes."""
    if policy is None:
        return None
    return SilentWriter(policy) if rank else Writer(policy, None if folder is None else RunFolder(folder))


class SilentWriter(Writer):
    """Do as `Writer` does, without a lock and without files. Another process writes them."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._lineage: list[File] = []

    def files(self) -> list[File]:
        """List the checkpoints of the policy, and remember them."""
        files = super().files()
        self._lineage = [file for file in files if file[0] != self.policy.latest_path]
        return files

    def __enter__(self) -> SilentWriter:
        """Take no lock."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Release nothing."""

    def start(
        self,
        path: Path,
        params: Params,
        opt_state: State,
        metadata: Metadata,
        position: RunPosition,
        select: object = None,
    ) -> None:
        """Note that a checkpoint is written now, and which ones the other process deletes after it."""
        metadata = {**metadata, "file": self.policy.name_of(path)}
        self._writing = Future[Written]()
        self._writing.set_result((path, metadata, self._superfluous(path, metadata)))
        self.step, self._position = position.step, position

    def _superfluous(self, path: Path, metadata: Metadata) -> tuple[str, ...]:
        """List the files of the run that the policy does not keep, and forget them. No file is read."""
        if self.policy.keep_last is None or not self.policy.owns(path, metadata):
            return ()
        older = [file for file in of_lineage(self._lineage, metadata) if file[0] != path]
        files = sorted([*older, (path, indexed(metadata))], key=in_order)
        gone, _ = superfluous(self.policy, files, (path, self.resumed_from))
        self._lineage = [file for file in files if file not in gone]
        return tuple(str(file) for file, _ in gone)

    def bundle(self, report: Any) -> None:
        """Write no bundle."""

    def _complete_latest(self) -> None:
        """Leave the latest file to the process that writes."""
