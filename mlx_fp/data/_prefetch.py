"""Prefetch: read ahead in a thread while the device or the consumer is busy."""

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

from ..core._threads import begin_thread, stop_asked
from ._call_text import call_text
from ._cursor import EpochRead, map_rows, non_negative_int
from ._dataset import Operation, same_index
from ._evaluated import evaluate_arrays
from ._types import Item

__all__ = ["prefetch"]

_END = object()
"""The result of a request after the last item."""

_Requests = SimpleQueue[tuple[Future[Item], Iterator[Item]]]
"""Requests for a thread: each is the future of an item, and the iterator to read the item from."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """A daemon thread that reads the next item of any iterator on request, and never ends.

    A thread that has used MLX acquires the GIL once more when it ends. When this happens at the exit of the
    interpreter, it kills the process. So the thread is a daemon and waits for requests forever.
    """

    requests: _Requests
    thread_id: int | None

    def request(self, rows: Iterator[Item]) -> Future[Item]:
        """Request the next item; the result is `_END` after the last item."""
        future: Future[Item] = Future()
        self.requests.put((future, rows))
        return future

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the thread has read its current item, so that the iterator may be closed; return whether it has.

        The garbage collector may close an iterator in any thread, in this one too, and at the exit of the interpreter.
        The timeout is in seconds; None waits without end.
        """
        if self.thread_id != get_ident() and not sys.is_finalizing():
            try:
                self.request(iter(())).result(timeout)
            except TimeoutError:
                return False
        return True


_IDLE: list[_Reader] = []
"""Readers without an iterator, which later epochs reuse: for each new reader, MLX would start a thread of its own."""

_STARTED: list[_Reader] = []
"""All readers except the abandoned ones."""

_ABANDONED: list[_Reader] = []
"""Readers that did not finish their current item in time when they were closed."""

_CLOSE_TIMEOUT = 2.0
"""Seconds to wait for the current item of a reader when it is closed."""

_POLL_INTERVAL = 0.5
"""Seconds between two checks of whether the run is to stop."""


@atexit.register
def _wait_for_readers() -> None:
    for reader in _STARTED:
        reader.wait()
    for reader in _ABANDONED:
        reader.wait(_CLOSE_TIMEOUT)


def _forget_readers() -> None:
    for readers in (_IDLE, _STARTED, _ABANDONED):
        readers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_readers)  # a forked process has no threads of its parent


def prefetch(n: int = 2) -> Operation:
    """Read up to `n` items ahead in a thread, in order.

    All operations before this one run in the thread, so put it last. It helps where reading waits for disks, or
    computes in numpy, because other threads run meanwhile. MLX arrays are evaluated in the thread. A function before
    `prefetch` cannot use a lazy array that another thread made: call `mx.eval` on this array first.

    An error is raised where its item would have come, with its notes. When the reader is closed, the thread stops
    after its current item. Closing waits for this item for at most two seconds, and after Ctrl-C it does not wait.
    A cursor counts the items that were handed out, not the items that were read ahead.

    Args:
        n: Number of items, at least 1; 2 by default.

    Raises:
        ValueError: `n` is not an integer of at least 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(range(4)), data.map(lambda n: n * n), data.prefetch(2)))
    [0, 1, 4, 9]
    """
    ahead = non_negative_int(n, "the n of prefetch(n)", minimum=1)
    label = call_text("prefetch", ahead)

    def on_rows(rows: Iterator[Item], epoch_read: EpochRead) -> Iterator[Item]:
        return _read_ahead(map_rows(evaluate_arrays, rows, epoch_read, label), ahead)

    return Operation(label, on_rows, size=lambda size: size, seek=same_index, calls=False, divides=True)


def _read_ahead(rows: Iterator[Item], ahead: int) -> Generator[Item, None, None]:
    """Keep `ahead` requests queued; at the exit of the interpreter, at most these requests are waited for."""
    reader = _borrow_reader()
    requests: deque[Future[Item]] = deque()
    timeout = _CLOSE_TIMEOUT
    try:
        for _ in range(ahead):
            requests.append(reader.request(rows))
        while (item := _wait_for_item(requests.popleft())) is not _END:
            requests.append(reader.request(rows))
            yield item
    except KeyboardInterrupt:
        timeout = 0
        raise
    finally:
        for request in requests:
            request.cancel()
        _release_reader(reader, timeout)


def _wait_for_item(future: Future[Item]) -> Item:
    """Return the item of a request. If the run was asked to stop meanwhile, raise the signal again and do not wait."""
    while True:
        try:
            return future.result(_POLL_INTERVAL)
        except TimeoutError:
            if future.done():  # the item came meanwhile, or reading it raised a TimeoutError
                return future.result()
            name = stop_asked.get()()
            if name is not None:
                signal.raise_signal(signal.Signals[name])


def _borrow_reader() -> _Reader:
    try:
        return _IDLE.pop()
    except IndexError:
        return _start_reader()


def _release_reader(reader: _Reader, timeout: float) -> None:
    """Return a reader for reuse, or abandon it if its current item does not come; the thread then closes its rows."""
    finished = False
    try:
        finished = reader.wait(timeout)
    finally:
        if finished:
            _IDLE.append(reader)
        else:
            _STARTED.remove(reader)
            _ABANDONED.append(reader)


def _start_reader() -> _Reader:
    requests: _Requests = SimpleQueue()
    thread = Thread(target=_serve_requests, args=(requests,), name="mlx_fp-prefetch", daemon=True)
    thread.start()
    reader = _Reader(requests, thread.ident)
    _STARTED.append(reader)
    return reader


def _serve_requests(requests: _Requests) -> None:
    begin_thread()
    while True:
        future, rows = requests.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(next(rows, _END))
            except BaseException as error:
                future.set_exception(error)
        del future, rows  # while the thread waits, it must not keep them alive
