"""Progress of a run: a bar on a terminal, lines elsewhere. It reads the stream of events and is no hook.

Epochs count from 0, as in rows, events and errors: the last of three epochs is "epoch 2 of 3".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Self

from ._event import (
    AfterEpoch,
    AfterEvaluation,
    AfterFit,
    AfterLog,
    AfterStep,
    BeforeEpoch,
    BeforeFit,
    BeforeValidation,
    Event,
)
from ._event_table import name_of_event

if TYPE_CHECKING:
    from ._plan import Plan
    from ._state import LoopState

__all__ = ["progress"]

_EVERY = 0.2
"""Seconds between two readings of the loss. Each reading waits for the device."""


def progress(*, quiet: bool = False) -> type[_Silent]:
    """Return the class that shows a run: a bar where standard output is a terminal and rich is installed, else lines.

    >>> progress(quiet=True).__name__
    '_Silent'
    """
    if quiet:
        return _Silent
    return _Bar if sys.stdout.isatty() and find_spec("rich") is not None else _Lines


class _Silent:
    """Show nothing of a run that starts from a state. A subclass has a method for each of its `events`."""

    events: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, plan: Plan, state: LoopState) -> None:
        self.plan, self.cursor, self.steps = plan, state.cursor, state.steps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""

    def __call__(self, event: Event) -> None:
        with _guarded():
            getattr(self, name_of_event(event))(event)

    def _epoch(self, epoch: int) -> str:
        """Name an epoch, with the number of epochs of the run where it is known."""
        return f"epoch {epoch}" + ("" if self.plan.epochs is None else f" of {self.plan.epochs}")

    def _step(self, count: int) -> str:
        """Return the number of steps taken, with the number of steps of the run where it is known."""
        return f"step {count}" + ("" if self.plan.steps is None else f"/{self.plan.steps}")


class _Lines(_Silent):
    """Print a line for each finished epoch, each logged step, and each validation within an epoch."""

    events = frozenset({"before_fit", "after_epoch", "after_evaluation", "after_log", "after_fit"})

    def before_fit(self, event: BeforeFit) -> None:
        """Show nothing yet."""

    def after_epoch(self, event: AfterEpoch) -> None:
        row = event.row
        start = self._epoch(row.epoch) + ("" if self.plan.steps is None else f"  {self._step(row.steps)}")
        self.show(start, row.figures(), f"{row.examples_per_second:,.0f} examples/s")

    def after_evaluation(self, event: AfterEvaluation) -> None:
        if self.plan.validate_every is not None:
            self.show(self._step(event.row.step), event.row.figures())

    def after_log(self, event: AfterLog) -> None:
        row = event.row
        rates = {"learning_rate": row.learning_rate, "grad_norm": row.grad_norm}
        figures = {"loss": row.loss, **row.figures, **{k: v for k, v in rates.items() if v is not None}}
        self.show(self._step(row.step), figures, f"{row.rows_per_second or 0.0:,.0f} rows/s")

    def after_fit(self, event: AfterFit) -> None:
        report = event.report
        if report.stop_reason is not None:
            self.show(f"stopped after {report.rows[-1].steps if report.rows else 0} steps: {report.stop_reason}", {})

    def show(self, start: str, figures: Mapping[str, float], *more: str) -> None:
        """Print a line."""
        print(_line(start, figures, *more), flush=True)


class _Bar(_Lines):
    """Show a bar over the steps of the present epoch, or of the run, with the remaining time. Past epochs are lines.

    Logged steps have no lines here: the bar shows the newest loss.
    """

    events = (_Lines.events - {"after_log"}) | {"before_epoch", "after_step", "before_validation"}

    def __init__(self, plan: Plan, state: LoopState) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        from ..step._rows import example_count

        super().__init__(plan, state)
        self.count, self.text = example_count, Text
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}{task.fields[of]}", "progress.download", markup=False),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        self.bar = Progress(*columns, transient=True)
        self.task = self.bar.add_task("", total=None, figures="", of="", visible=False)
        self.batches: int | None = None
        self.done = self.examples = 0
        self.epoch = state.epoch
        self.last_reading = self.started = 0.0
        self.val_loss = ""

    def __exit__(self, *error: object) -> None:
        with _guarded():
            self.bar.stop()

    def before_fit(self, event: BeforeFit) -> None:
        self.batches = None if event.batches is None else -(-event.batches // self.plan.accumulate)
        self.started = time.monotonic()
        self.bar.start()
        if self.cursor.index:  # an epoch that another process began has no `before_epoch` here
            self._begin(event.start_epoch, self.cursor.index // self.plan.accumulate)

    def before_epoch(self, event: BeforeEpoch) -> None:
        self._begin(event.epoch, 0)

    def after_step(self, event: AfterStep) -> None:
        batches = event.batch if self.plan.accumulate > 1 else [event.batch]
        self.done, self.examples = self.done + 1, self.examples + sum(map(self.count, batches))
        now = time.monotonic()
        if now - self.last_reading < _EVERY:
            self.bar.advance(self.task)
            return
        self.last_reading = now
        rate = self.examples / max(now - self.started, 1e-9)
        figures = [f"loss {event.loss_value:.4f}", self.val_loss, f"{rate:,.0f} examples/s", self._remaining(now)]
        self.bar.update(self.task, advance=1, figures="  ".join(filter(None, figures)))

    def before_validation(self, event: BeforeValidation) -> None:
        self.bar.update(self.task, figures=f"{self.val_loss}  validating".strip())

    def after_evaluation(self, event: AfterEvaluation) -> None:
        super().after_evaluation(event)
        self.val_loss = "" if event.row.val_loss is None else f"val_loss {event.row.val_loss:.4f}"

    def after_epoch(self, event: AfterEpoch) -> None:
        self.batches = -(-event.row.batches // self.plan.accumulate)
        super().after_epoch(event)

    def show(self, start: str, figures: Mapping[str, float], *more: str) -> None:
        self.bar.console.print(self.text(_line(start, figures, *more)))

    def _begin(self, epoch: int, done: int) -> None:
        """Show an epoch with its number of finished steps, or the whole run where its number of steps is known."""
        total = self.batches
        if self.plan.steps is not None:
            total, done = self.plan.steps, self.steps + self.done
        of = "" if total is None else f"/{total}"
        name, figures = self._epoch(epoch), self.val_loss
        self.bar.reset(self.task, total=total, completed=done, visible=True, description=name, figures=figures, of=of)

    def _remaining(self, now: float) -> str:
        """Return the remaining time at the mean rate so far, or "" where the number of steps is not known."""
        if self.plan.steps is not None:
            left = self.plan.steps - self.steps - self.done
        elif self.batches and self.plan.epochs is not None:
            epochs = self.plan.epochs - self.epoch
            left = self.batches * epochs - self.cursor.index // self.plan.accumulate - self.done
        else:
            return ""
        seconds = (now - self.started) / self.done * max(left, 0)
        return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f} left"


@contextmanager
def _guarded() -> Iterator[None]:
    """Within, an output without a reader loses its lines and nothing else.

    A closed pipe is replaced by the null device, so that nothing fails when Python flushes the output at exit.
    """
    try:
        yield
    except BrokenPipeError:
        _discard_output()
    except SystemExit:  # rich ends a program whose output is closed in this way
        _discard_output()
    except ValueError as error:
        if "closed file" not in str(error):
            raise
    except OSError:  # for example, a full disk under a redirected output
        pass


def _discard_output() -> None:
    """Replace standard output by the null device."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _line(start: str, figures: Mapping[str, float], *more: str) -> str:
    shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
    return "  ".join(filter(None, [start, shown, *more]))
