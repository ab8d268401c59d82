"""Read ahead in a thread, while the device or the consumer is busy."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread, get_ident
from typing import Any

from ..core._threads import begin_thread, stop_asked
from ._cursor import Pass, mapped, natural
from ._dataset import Operation, same
from ._lazy import evaluated

__all__ = ["prefetch"]

_END = object()


@dataclass(frozen=True, slots=True)
class _Reader:
    """A thread that gives the next item of whatever it is asked for, and never ends.

    One that has used MLX takes Python's lock once more when it ends, and at exit that kills the process. So it is a
    daemon, which an exit leaves where it waits.
    """

    requests: SimpleQueue[tuple[Future[Any], Iterator[Any]]]
    number: int | None

    def ask(self, rows: Iterator[Any]) -> Future[Any]:
        """Ask for the next item, `_END` after the last."""
        item: Future[Any] = Future()
        self.requests.put((item, rows))
        return item

    def rest(self, patience: float | None = None) -> bool:
        """Wait until it is between two items, so that its rows may be closed; say whether it is."""
        if self.number != get_ident() and not sys.is_finalizing():  # garbage is collected in any thread, and at exit
            try:
                self.ask(iter(())).result(patience)
            except TimeoutError:
                return False
        return True


_IDLE: list[_Reader] = []
"""Those whose rows have ended: a new thread at each epoch would cost MLX one of its own each time."""

_MADE: list[_Reader] = []
"""All of them, but those that were left."""

_LEFT: list[_Reader] = []
"""Those that were left with an item that does not come, because somebody wanted to go on."""

_PATIENCE = 2.0
"""How many seconds are waited for an item that nobody wants any more."""

_GLANCE = 0.5
"""How many seconds pass between two looks at whether the run is to stop."""


@atexit.register
def _rest() -> None:
    for reader in _MADE:
        reader.rest()
    for reader in _LEFT:
        reader.rest(_PATIENCE)


def _forget() -> None:
    for readers in (_IDLE, _MADE, _LEFT):
        readers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # threads stay with the parent


def prefetch(n: int = 2) -> Operation:
    """Read up to `n` items ahead in a thread, in order; arrays of MLX's are evaluated there.

    What goes before it runs in that thread; put it last. Errors come out where their item would have, with their
    notes. Closing the reader ends the reading, after the item at hand, for which it waits two seconds at most; Ctrl-C
    waits for none. A cursor counts items handed out, not those
    read ahead. It pays where reading waits for disks or for numpy, which let other threads run. A lazy array that a
    function before it uses cannot be read in that thread: `mx.eval` it first.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(range(4)), data.map(lambda n: n * n), data.prefetch(2)))
    [0, 1, 4, 9]
    """
    ahead = natural(n, "the n of prefetch(n)", least=1)
    label = f"prefetch({ahead})"

    def on_rows(rows: Iterator[Any], now: Pass) -> Iterator[Any]:
        return _prefetched(mapped(evaluated, rows, now, label), ahead)

    return Operation(label, on_rows, size=lambda size: size, seek=same, calls=False)


def _prefetched(rows: Iterator[Any], ahead: int) -> Generator[Any, None, None]:
    """Keep `ahead` requests for a next item with a thread, which waits for nobody: an exit waits for these at most."""
    reader = _lent()
    asked: deque[Future[Any]] = deque()
    patience: float = _PATIENCE
    try:
        for _ in range(ahead):
            asked.append(reader.ask(rows))
        while (item := _come(asked.popleft())) is not _END:
            asked.append(reader.ask(rows))
            yield item
    except KeyboardInterrupt:
        patience = 0
        raise
    finally:
        for request in asked:
            request.cancel()
        _release(reader, patience)


def _come(item: Future[Any]) -> Any:
    """Return an item when it has come. A run that was asked to stop waits no longer: the signal is sent once more."""
    while True:
        try:
            return item.result(_GLANCE)
        except TimeoutError:
            if item.done():  # it has come meanwhile, or it is an error of its own
                return item.result()
            name = stop_asked.get()()
            if name is not None:
                signal.raise_signal(signal.Signals[name])


def _release(reader: _Reader, patience: float) -> None:
    """Give a reader back, or leave it with an item that does not come: its rows end with the thread's use of them."""
    rests = False
    try:
        rests = reader.rest(patience)
    finally:
        if rests:
            _IDLE.append(reader)
        else:
            _MADE.remove(reader)
            _LEFT.append(reader)


def _lent() -> _Reader:
    try:
        return _IDLE.pop()
    except IndexError:
        return _started()


def _started() -> _Reader:
    requests: SimpleQueue[tuple[Future[Any], Iterator[Any]]] = SimpleQueue()
    thread = Thread(target=_serve, args=(requests,), name="mlx_fp-prefetch", daemon=True)
    thread.start()
    reader = _Reader(requests, thread.ident)
    _MADE.append(reader)
    return reader


def _serve(requests: SimpleQueue[tuple[Future[Any], Iterator[Any]]]) -> None:
    begin_thread()
    while True:
        item, rows = requests.get()
        if item.set_running_or_notify_cancel():
            try:
                item.set_result(next(rows, _END))
            except BaseException as error:
                item.set_exception(error)
        del item, rows  # they are not for this thread to keep
