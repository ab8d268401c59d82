"""The tracker that writes event files of TensorBoard, with the package tensorboardX."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core._errors import named_error
from ..core._user_path import user_path
from ._tracker import TrackedRun

__all__ = ["TensorBoard"]

_QUEUE = 1000
"""The number of events that may wait for the thread that writes them."""


class TensorBoard:
    """Write the figures of a run as scalars, its settings as hyperparameters, and its end as a text."""

    def __init__(self, *, folder: str | os.PathLike[str] | None = None, flush_secs: int = 30) -> None:
        """Make a tracker.

        Args:
            folder: The folder of the event files of the run. None: `tensorboard/TIME` in the folder of the checkpoints,
                or else in a folder of the run.
            flush_secs: The seconds between two writes of the file. Each checkpoint of the run is followed by one, too.
        """
        self._given = None if folder is None else user_path(folder)
        self._flush_secs = flush_secs
        self._writer: Any = None
        self._summary: Any = None
        self._step = 0

    def start(self, run: TrackedRun) -> str:
        """Open an event file. For a resumed run TensorBoard hides the events after the step from which it goes on."""
        from tensorboardX import SummaryWriter
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import hparams

        before = None if run.id is None else Path(run.id)
        default = before if before is not None and before.exists() else run.place / "tensorboard" / run.name
        folder = default if self._given is None else self._given
        purge = None if run.id is None else run.step + 1
        self._step, self._summary = run.step, Summary
        suffix = f".{time.time_ns()}"  # two files of one second would have one name, and the second replace the first
        self._writer = SummaryWriter(
            str(folder), purge_step=purge, flush_secs=self._flush_secs, max_queue=_QUEUE, filename_suffix=suffix
        )
        start, settings = hparams(dict(run.settings), {})[:2]
        if run.id is None:
            self._writer.file_writer.add_summary(start)
            self._writer.file_writer.add_summary(settings)
            self._text("settings", "".join(f"    {name} = {value}\n" for name, value in run.settings.items()))
        return os.path.abspath(folder)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures as scalars, in one event: an event for each figure takes several times as long."""
        self._step = step
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writer.file_writer.add_summary(self._summary(value=values), step)

    def flush(self) -> None:
        """Write the events that wait."""
        self._writer.flush()

    def artifact(self, path: str) -> None:
        """Write a path as a text. TensorBoard keeps no files."""
        self._text("artifacts", path)

    def finish(self, reason: str | BaseException | None) -> None:
        """Write the reason of the end as a text, and close the file."""
        if reason is not None:
            self._text("end", named_error(reason) if isinstance(reason, BaseException) else reason)
        self._writer.close()

    def _text(self, name: str, text: str) -> None:
        self._writer.add_text(name, text, self._step)
