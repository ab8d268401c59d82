"""Ctrl-C and SIGTERM end a run after the present step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..core._threads import stop_asked

__all__ = ["SIGNALS", "Signals", "graceful_stop"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that end a run after the present step."""


_STDERR = 2


class Signals:
    """The signals that have come since a run began.

    The first signal only asks the run to end. The second one calls the handler of before the run; where that handler
    kills the process, the run is ended first, so that it can save. While a checkpoint is written, the second signal
    waits, and the third does not.
    """

    def __init__(self) -> None:
        self._name: str | None = None
        self._late: int | None = None
        self._undisturbed = 0
        self._before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}

    def asked(self) -> str | None:
        """Return the name of the first signal that has come, or None."""
        return self._name

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Within, while a checkpoint is written, a second signal waits for the end of the run."""
        self._undisturbed += 1
        try:
            yield
        finally:
            self._undisturbed -= 1

    def install(self) -> None:
        """Install the handlers. The first signal only asks the run to end."""
        for number in self._before:
            signal.signal(number, self._first)

    def restore(self) -> None:
        """Restore the handlers of before the run."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_late(self) -> None:
        """Raise the delayed signal, if there is one."""
        if self._late is not None:
            signal.raise_signal(self._late)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self._name = signal.Signals(number).name  # before any statement that could fail
        for each in self._before:
            signal.signal(each, self._again)
        _tell_terminal("stopping after this step; once more to stop at once\n")

    def _again(self, number: int, frame: FrameType | None) -> None:
        if self._undisturbed and self._late is None:
            self._late = number
            return
        handler = self._before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            self._late = self._late or number
            raise KeyboardInterrupt(signal.Signals(number).name)


def _tell_terminal(text: str) -> None:
    """Write a line to standard error if it is a terminal. A pipe may be closed, or full, and would block."""
    with suppress(OSError):
        if os.isatty(_STDERR):
            os.write(_STDERR, text.encode())


@contextmanager
def graceful_stop(*, alone: bool = True) -> Iterator[Signals]:
    """Within, the first Ctrl-C or SIGTERM only asks the run to end. The next one calls the handler of before.

    Outside the main thread signals are unchanged. A run that is not `alone` does not end while it waits for data: it
    ends after the step on which all processes agree.

    >>> with graceful_stop() as signals:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     signals.asked()
    'SIGTERM'
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    signals.install()
    known = stop_asked.set(signals.asked if alone else lambda: None)
    try:
        yield signals
    finally:
        stop_asked.reset(known)
        signals.restore()
        signals.raise_late()
