"""Read ahead in a thread, while the device or the consumer is busy."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Any

from .dataset import Operation, same
from .place import Pass, mapped, natural

__all__ = ["prefetch"]

_END = object()

_IDLE: list[tuple[ThreadPoolExecutor, int]] = []
"""Threads of readers that have ended: a new thread at each epoch would cost MLX one of its own each time."""

_MADE: list[ThreadPoolExecutor] = []
"""All threads: one that only its reader knew would end when both are found to be garbage, and the reader would wait."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDLE.clear)  # threads stay with the parent


def prefetch(n: int = 2) -> Operation:
    """Read up to `n` items ahead in a thread, in order; arrays of MLX's are evaluated there.

    What goes before it runs in that thread; put it last. Errors come out where their item would have, with their
    notes. Closing the reader ends the reading, after the item at hand. A cursor counts items handed out, not those
    read ahead. It pays where reading waits for disks or for numpy, which let other threads run.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(range(4)), data.map(lambda n: n * n), data.prefetch(2)))
    [0, 1, 4, 9]
    """
    ahead = natural(n, "the n of prefetch(n)", least=1)
    label = f"prefetch({ahead})"

    def on_rows(rows: Iterator[Any], now: Pass) -> Iterator[Any]:
        return _prefetched(mapped(_evaluated, rows, now, label), ahead)

    return Operation(label, on_rows, size=lambda size: size, seek=same)


def _prefetched(rows: Iterator[Any], ahead: int) -> Generator[Any, None, None]:
    """Keep `ahead` requests for a next item with the thread: it waits for nobody, so an exit never waits for it."""
    with _thread() as (thread, number):
        asked: deque[Future[Any]] = deque()
        try:
            for _ in range(ahead):
                asked.append(thread.submit(next, rows, _END))
            while (item := asked.popleft().result()) is not _END:
                asked.append(thread.submit(next, rows, _END))
                yield item
        finally:
            for request in asked:
                request.cancel()
            if get_ident() != number:  # garbage is collected in any thread
                with suppress(RuntimeError):  # at exit, when threads have ended
                    thread.submit(int).result()  # the reader is between two items now, and may be closed


def _evaluated(item: Any) -> Any:
    """Evaluate what MLX has put off: a lazy array cannot be read in another thread than its own."""
    if sys.modules.get("mlx.core"):
        from ..door import mx

        mx.eval(item)
    return item


@contextmanager
def _thread() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Lend a thread, and its number."""
    try:
        thread = _IDLE.pop()
    except IndexError:
        made = ThreadPoolExecutor(1, thread_name_prefix="mlx_fp-prefetch")
        _MADE.append(made)
        thread = made, made.submit(get_ident).result()
    try:
        yield thread
    finally:
        _IDLE.append(thread)
