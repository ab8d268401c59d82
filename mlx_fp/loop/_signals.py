"""Ctrl-C and SIGTERM end a run after the step at hand."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["SIGNALS", "Signals", "graceful_stop"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that end a run after the step at hand."""


class Signals:
    """The signals that have come since a run began; the second one does what it did before the run."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._late: int | None = None
        self._undisturbed = 0
        self._before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}

    def asked(self) -> str | None:
        """Return the name of the first signal that has come, None where none has."""
        return self._name

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Within, as a checkpoint is written, a second signal waits for the end of the run."""
        self._undisturbed += 1
        try:
            yield
        finally:
            self._undisturbed -= 1

    def install(self) -> None:
        """Take the signals, the first of which only asks."""
        for number in self._before:
            signal.signal(number, self._first)

    def restore(self) -> None:
        """Put back the handlers of before the run."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_late(self) -> None:
        """Raise the signal that had to wait."""
        if self._late is not None:
            signal.raise_signal(self._late)

    def _first(self, number: int, frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, self._again)
        print("stopping after this step; once more to stop at once", file=sys.stderr)
        self._name = signal.Signals(number).name

    def _again(self, number: int, frame: FrameType | None) -> None:
        if self._undisturbed:
            self._late = self._late or number
            return
        self.restore()
        signal.raise_signal(number)


@contextmanager
def graceful_stop() -> Iterator[Signals]:
    """Within, the first Ctrl-C or SIGTERM only asks; the next one does what it did before.

    In a thread other than the main one signals are left alone.

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
    try:
        yield signals
    finally:
        signals.restore()
        signals.raise_late()
