"""Prefetch: read ahead in a thread while the device or the consumer is busy."""

from __future__ import annotations

import atexit
import os
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread, get_ident

from ..core._threads import begin_thread
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

    def wait(self) -> None:
        """Wait until the thread has read its current item, so that the iterator may be closed.

        The garbage collector may close an iterator in any thread, in this one too, and at the exit of the interpreter.
        """
        if self.thread_id != get_ident() and not sys.is_finalizing():
            self.request(iter(())).result()


_IDLE: list[_Reader] = []
"""Readers without an iterator, which later epochs reuse: for each new reader, MLX would start a thread of its own."""

_STARTED: list[_Reader] = []
"""All readers."""


@atexit.register
def _wait_for_readers() -> None:
    for reader in _STARTED:
        reader.wait()


def _forget_readers() -> None:
    _IDLE.clear()
    _STARTED.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_readers)  # a forked process has no threads of its parent


def prefetch(n: int = 2) -> Operation:
    """Read up to `n` items ahead in a thread, in order.

    All operations before this one run in the thread, so put it last. It helps where reading waits for disks, or
    computes in numpy, because other threads run meanwhile. MLX arrays are evaluated in the thread. A function before
    `prefetch` cannot use a lazy array that another thread made: call `mx.eval` on this array first.

    An error is raised where its item would have come, with its notes. When the reader is closed, the thread stops
    after its current item. A cursor counts the items that were handed out, not the items that were read ahead.

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

    return Operation(label, on_rows, size=lambda size: size, seek=same_index, calls=False)


def _read_ahead(rows: Iterator[Item], ahead: int) -> Generator[Item, None, None]:
    """Keep `ahead` requests queued; at the exit of the interpreter, at most these requests are waited for."""
    with _borrow_reader() as reader:
        requests: deque[Future[Item]] = deque()
        try:
            for _ in range(ahead):
                requests.append(reader.request(rows))
            while (item := requests.popleft().result()) is not _END:
                requests.append(reader.request(rows))
                yield item
        finally:
            for request in requests:
                request.cancel()
            reader.wait()


@contextmanager
def _borrow_reader() -> Iterator[_Reader]:
    try:
        reader = _IDLE.pop()
    except IndexError:
        reader = _start_reader()
    try:
        yield reader
    finally:
        _IDLE.append(reader)


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
