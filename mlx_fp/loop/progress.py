"""Progress of a run, as ordinary hooks: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from typing import Any

from .event import AfterEpoch, BeforeFit
from .hook import Hook, hook

__all__ = ["progress"]

_LAST = 1000
"""Progress speaks after all other hooks of an event."""

_EVERY = 0.2
"""Seconds between two looks at the loss, each of which waits for the device."""


def progress() -> tuple[Hook, ...]:
    """Return the hooks that show a run: a rich bar where standard output is a terminal and rich is there, else lines.

    >>> progress()
    (on('before_fit', start), on('after_epoch', line))
    """
    if sys.stdout.isatty() and find_spec("rich") is not None:
        return _bar()
    return _lines()


def _lines() -> tuple[Hook, ...]:
    shown = _Lines()
    return hook("before_fit", shown.start), hook("after_epoch", shown.line, priority=_LAST)


class _Lines:
    """A line for each finished epoch."""

    target = 0

    def start(self, event: BeforeFit) -> None:
        self.target = event.epochs_target

    def line(self, event: AfterEpoch) -> None:
        print(_line(event, self.target), flush=True)


def _line(event: AfterEpoch, target: int) -> str:
    row = event.row
    shown = "  ".join(f"{name} {value:.4f}" for name, value in row.figures().items())
    return f"epoch {row.epoch + 1}/{target}  {shown}  {row.examples_per_second:,.0f} examples/s"


def _bar() -> tuple[Hook, ...]:
    shown = _Bar()
    return (
        hook("before_fit", shown.start),
        hook("before_epoch", shown.epoch),
        hook("after_step", shown.step, priority=_LAST),
        hook("before_validation", shown.validation),
        hook("after_epoch", shown.line, priority=_LAST),
        hook("after_fit", shown.stop, priority=_LAST),
    )


class _Bar:
    """A bar over the batches of the epoch at hand, with the time that the run still takes; past epochs are lines."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from .totals import examples

        self.count = examples
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self.bar = Progress(*columns, transient=True)
        self.task = self.bar.add_task("", figures="", visible=False)
        self.batches: int | None = None
        self.target = self.epochs = self.done = self.examples = 0
        self.looked = self.started = 0.0
        self.held = ""

    def start(self, event: Any) -> None:
        self.target, self.batches = event.epochs_target, event.batches
        self.epochs = event.epochs_target - event.start_epoch
        self.started = time.monotonic()
        self.bar.start()

    def epoch(self, event: Any) -> None:
        name = f"epoch {event.epoch + 1}/{self.target}"
        self.bar.reset(self.task, total=self.batches, description=name, visible=True, figures=self.held)

    def step(self, event: Any) -> None:
        self.done, self.examples = self.done + 1, self.examples + self.count(event.batch)
        now = time.monotonic()
        if now - self.looked < _EVERY:
            self.bar.advance(self.task)
            return
        self.looked = now
        rate = self.examples / max(now - self.started, 1e-9)
        figures = [f"loss {event.loss_value:.4f}", self.held, f"{rate:,.0f} examples/s", self._left(now)]
        self.bar.update(self.task, advance=1, figures="  ".join(filter(None, figures)))

    def validation(self, event: Any) -> None:
        self.bar.update(self.task, figures=f"{self.held}  validating".strip())

    def line(self, event: Any) -> None:
        self.batches = event.row.batches
        self.held = "" if event.row.val_loss is None else f"val_loss {event.row.val_loss:.4f}"
        self.bar.console.print(_line(event, self.target), highlight=False)

    def stop(self, event: Any) -> None:
        self.bar.stop()

    def _left(self, now: float) -> str:
        """Say how long the run still takes, at the rate so far, where the number of batches is known."""
        if not self.batches:
            return ""
        seconds = (now - self.started) / self.done * max(self.batches * self.epochs - self.done, 0)
        return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f} left"
