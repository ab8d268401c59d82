"""Progress of a run: a bar on a terminal, a line per epoch elsewhere. It reads the stream of events, and is no hook."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from typing import Any, ClassVar, Self

from ..data import Cursor
from ._event import EVENTS, AfterEpoch, BeforeFit, Event

__all__ = ["progress"]

_NAMES = {kind: name for name, kind in EVENTS.items()}

_EVERY = 0.2
"""Seconds between two looks at the loss, each of which waits for the device."""


def progress(*, quiet: bool = False) -> type[_Silent]:
    """Return what shows a run: a rich bar where standard output is a terminal and rich is there, else lines.

    >>> progress(quiet=True).__name__
    '_Silent'
    """
    if quiet:
        return _Silent
    return _Bar if sys.stdout.isatty() and find_spec("rich") is not None else _Lines


class _Silent:
    """Shows nothing of a run that goes on at a cursor. What shows more has a method for each of its `events`."""

    events: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""

    def __call__(self, event: Event) -> None:
        getattr(self, _NAMES[type(event)])(event)


class _Lines(_Silent):
    """A line for each finished epoch."""

    events = frozenset({"before_fit", "after_epoch"})
    target = 0

    def before_fit(self, event: BeforeFit) -> None:
        self.target = event.epochs_target

    def after_epoch(self, event: AfterEpoch) -> None:
        print(self.line(event), flush=True)

    def line(self, event: AfterEpoch) -> str:
        row = event.row
        shown = "  ".join(f"{name} {value:.4f}" for name, value in row.figures().items())
        return f"epoch {row.epoch + 1}/{self.target}  {shown}  {row.examples_per_second:,.0f} examples/s"


class _Bar(_Lines):
    """A bar over the batches of the epoch at hand, with the time that the run still takes; past epochs are lines."""

    events = _Lines.events | {"before_epoch", "after_step", "before_validation"}

    def __init__(self, cursor: Cursor) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        from ._totals import examples

        super().__init__(cursor)
        self.count, self.text = examples, Text
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}{task.fields[of]}", "progress.download", markup=False),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        self.bar = Progress(*columns, transient=True)
        self.task = self.bar.add_task("", total=None, figures="", of="", visible=False)
        self.batches: int | None = None
        self.epochs = self.done = self.examples = 0
        self.looked = self.started = 0.0
        self.held = ""

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def before_fit(self, event: BeforeFit) -> None:
        super().before_fit(event)
        self.batches = event.batches
        self.epochs = event.epochs_target - event.start_epoch
        self.started = time.monotonic()
        self.bar.start()
        if self.cursor.index:  # no event tells of an epoch that was begun before
            self._begin(event.start_epoch, self.cursor.index)

    def before_epoch(self, event: Any) -> None:
        self._begin(event.epoch, 0)

    def after_step(self, event: Any) -> None:
        self.done, self.examples = self.done + 1, self.examples + self.count(event.batch)
        now = time.monotonic()
        if now - self.looked < _EVERY:
            self.bar.advance(self.task)
            return
        self.looked = now
        rate = self.examples / max(now - self.started, 1e-9)
        figures = [f"loss {event.loss_value:.4f}", self.held, f"{rate:,.0f} examples/s", self._left(now)]
        self.bar.update(self.task, advance=1, figures="  ".join(filter(None, figures)))

    def before_validation(self, event: Any) -> None:
        self.bar.update(self.task, figures=f"{self.held}  validating".strip())

    def after_epoch(self, event: AfterEpoch) -> None:
        self.batches = event.row.batches
        self.held = "" if event.row.val_loss is None else f"val_loss {event.row.val_loss:.4f}"
        self.bar.console.print(self.text(self.line(event)))

    def _begin(self, epoch: int, done: int) -> None:
        """Show an epoch of which some batches are done."""
        name, of = f"epoch {epoch + 1}/{self.target}", "" if self.batches is None else f"/{self.batches}"
        shown: dict[str, Any] = {"description": name, "figures": self.held, "of": of}
        self.bar.reset(self.task, total=self.batches, completed=done, visible=True, **shown)

    def _left(self, now: float) -> str:
        """Say how long the run still takes, at the rate so far, where the number of batches is known."""
        if not self.batches:
            return ""
        left = self.batches * self.epochs - self.cursor.index - self.done
        seconds = (now - self.started) / self.done * max(left, 0)
        return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f} left"
