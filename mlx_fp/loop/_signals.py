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
def asking(ask: Callable[[str], None], busy: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Within, call `ask` with the name of the first signal that comes; the next one does what it did before.

    While `busy()`, as a checkpoint is written, that next one waits until the end. In a thread other than the main one
    signals are left alone.

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
    late: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, again)
        print("stopping after this step; once more to stop at once", file=sys.stderr)
        ask(signal.Signals(number).name)

    def again(number: int, frame: FrameType | None) -> None:
        if busy():
            late.append(number)
            return
        restore()
        signal.raise_signal(number)

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        restore()
        for waiting in late[:1]:
            signal.raise_signal(waiting)
