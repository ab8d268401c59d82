"""Ctrl-C and SIGTERM end a run after the step at hand."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["asking"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asking(ask: Callable[[str], None]) -> Iterator[None]:
    """Within, call `ask` with the name of the first signal that comes; the next one does what it did before.

    In a thread other than the main one signals are left alone.

    >>> asked = []
    >>> with asking(asked.append):
    ...     signal.raise_signal(signal.SIGTERM)
    >>> asked
    ['SIGTERM']
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, frame: FrameType | None) -> None:
        restore()
        print("stopping after this step; once more to stop at once", file=sys.stderr)
        ask(signal.Signals(number).name)

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        restore()
