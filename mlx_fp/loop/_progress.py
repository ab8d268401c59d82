"""Progress of a run: a bar on a terminal, HTML in a notebook, lines elsewhere. It is no hook, and no part of the run.

Epochs count from 0, as in rows, events and errors: the last of three epochs is "epoch 2 of 3".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import ClassVar, Protocol, Self

from ..checkpointing._writer import Writer
from ..core._mlx import mx
from ..core.backend import device_backend
from ._event import AfterFit, BeforeEpoch, BeforeFit, Event
from ._progress_line import Line, Note, kernel_text, line_of, note_of, resume_text
from ._progress_lines import Lines
from ._progress_notebook import Notebook, in_notebook
from ._progress_record import begin, note_event, note_moment, without_time
from ._progress_terminal import Terminal
from ._report import Report
from ._state import Loop, LoopState, Moment

__all__ = ["Silent", "progress"]

_EVERY = 0.1
"""Seconds between two readings of the run. A reading does not wait for the device. In a longer time between two moments
of the run MLX may have compiled kernels."""

_STANDS = 0.5
"""Seconds after which a run that shows no moment may be compiling kernels."""


class Display(Protocol):
    """A way to show a run. `logged` says whether logged steps and checkpoints have notes."""

    logged: bool

    def __init__(self, read: Callable[[], Line]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def note(self, note: Note) -> None:
        """Show a line that stays."""

    def refresh(self) -> None:
        """Show the line of the present moment now."""

    def finish(self, report: Report) -> None:
        """Show the end of a run."""


def progress(*, quiet: bool = False) -> type[Silent]:
    """Return the class that shows a run, as the output of this process allows.

    >>> progress(quiet=True).__name__
    'Silent'
    """
    return Silent if quiet else Shown


class Silent:
    """Show nothing of a run."""

    events: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, loop: Loop, state: LoopState, writer: Writer | None) -> None:
        """Take the run before its first step, and the writer of its files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the output as it was."""

    def __call__(self, event: Event) -> None:
        """Take an event."""

    @property
    def watch(self) -> Callable[[Moment], None] | None:
        """The function that sees each moment of the run; None without one."""
        return None


class Shown(Silent):
    """Show a run. The progress is a value that moments and events change; a display reads it when it likes."""

    events = frozenset(
        {
            "before_fit",
            "before_epoch",
            "before_validation",
            "after_evaluation",
            "after_epoch",
            "after_log",
            "after_checkpoint",
            "after_fit",
        }
    )

    def __init__(self, loop: Loop, state: LoopState, writer: Writer | None) -> None:
        super().__init__(loop, state, writer)
        self.progress, self.due, self.writer = begin(loop, state), 0.0, writer
        self.kernels, self.seen = device_backend().kernels(), time.monotonic()
        per_call = loop.plan.steps_per_call
        self.waited = None if loop.in_flight is None else loop.in_flight + per_call
        self.resumed = resume_text(loop.origin, state.steps, state.epoch)
        self.display = _display()(self.line)

    def __enter__(self) -> Self:
        with _guarded():
            self.display.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        with _guarded():
            self.display.__exit__(*error)

    def __call__(self, event: Event) -> None:
        self.progress = note_event(self.progress, event)
        with _guarded():
            if isinstance(event, BeforeFit) and self.resumed:
                self.display.note(Note(self.resumed))
            if (note := note_of(self.progress, event, logged=self.display.logged)) is not None:
                self.display.refresh()
                self.display.note(note)
            if isinstance(event, BeforeEpoch):
                self.display.refresh()
            if isinstance(event, AfterFit):
                self.display.finish(event.report)

    @property
    def watch(self) -> Callable[[Moment], None] | None:
        """The function that sees each moment of the run. It reads the run at most every tenth of a second."""
        return self._watch

    def line(self) -> Line:
        """Return the line of the present moment. Displays call it in threads of their own."""
        shown, writer = self.progress, self.writer
        stands = time.monotonic() - self.seen > _STANDS and shown.activity != "starting"
        kernels = device_backend().kernels() - self.kernels if stands or shown.activity == "compiling" else 0
        return line_of(shown, kernels=kernels, saving=writer is not None and writer.is_writing)

    def _watch(self, moment: Moment) -> None:
        now, passed = time.monotonic(), time.monotonic() - self.seen
        self.seen = now
        if passed > _EVERY and self.progress.first is not None:
            self._leave_out_compiling(passed)
        if now < self.due:
            return
        memory, before = mx.get_peak_memory(), self.progress
        self.progress = note_moment(before, moment, seconds=now, memory=memory, waited=self.waited)
        if self.progress.first is not None:
            self.due = now + _EVERY
        if self.progress.activity != before.activity:
            with _guarded():
                self.display.refresh()
            if self.progress.activity == "compiling":
                self._log("compiling")
            elif before.activity == "compiling":
                self._log(self._built())

    def _leave_out_compiling(self, passed: float) -> None:
        """Leave the time since the last moment out of the speed of the run if kernels were compiled in it."""
        if built := self._built():
            self.progress = without_time(self.progress, passed)
            self._log(built)

    def _built(self) -> str:
        """Return the note of the kernels that were compiled since the last note, or "" if there are none."""
        before, self.kernels = self.kernels, device_backend().kernels()
        count = self.kernels - before
        return f"compiled {kernel_text(count)}" if count > 0 else ""

    def _log(self, text: str) -> None:
        """Show a line where the display has no line of the present moment."""
        with _guarded():
            if self.display.logged and text:
                self.display.note(Note(text))


def _display() -> type[Display]:
    """Return the way to show a run here: in a notebook, on a terminal with rich, or elsewhere."""
    if in_notebook():
        return Notebook
    return Terminal if sys.stdout.isatty() and find_spec("rich") is not None else Lines


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
