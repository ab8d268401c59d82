"""A writer that keeps the schedule of a run's files and writes none: that of every process but the first."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from ..core._types import Params, State
from ..store._checkpoint import Metadata
from ._writer import RunPosition, Writer, Written

__all__ = ["SilentWriter"]


class SilentWriter(Writer):
    """Do as `Writer` does, without a lock and without files. Another process writes them."""

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
        """Note that a checkpoint is written now."""
        self._writing = Future[Written]()
        self._writing.set_result((path, metadata, ()))
        self.step, self._position = position.step, position

    def bundle(self, report: object) -> None:
        """Write no bundle."""

    def _complete_latest(self) -> None:
        """Leave the latest file to the process that writes."""
