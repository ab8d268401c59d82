"""Places in the data: where a reader stands, and what is told when something goes wrong there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import index as integer
from typing import Any

from ..core._errors import note

__all__ = ["CONTEXT", "START", "Cursor", "Pass", "blame", "close", "mapped", "natural", "replayed"]

CONTEXT = ("epoch", "index", "kind")
"""What a row function may name beside its row."""

_LOG = logging.getLogger("mlx_fp.data")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the data: the epoch, and how many of its items have been handed out.

    Raise ValueError unless both are integers of at least 0.

    >>> Cursor(epoch=3, index=120)
    Cursor(epoch=3, index=120)
    """

    epoch: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        natural(self.epoch, "the epoch of a Cursor")
        natural(self.index, "the index of a Cursor")


@dataclass(frozen=True, slots=True)
class Pass:
    """One reading of one epoch: what for (`"train"`, `"validation"`, `"test"`), and the index of its first item."""

    epoch: int
    kind: str
    start: int = 0
    owned: bool = False
    """Whether items go to functions of the user's, which may change them in place: then no source keeps them."""


def mapped(f: Callable[[Any], Any], rows: Any, now: Pass, label: str) -> Iterator[Any]:
    """Yield `f(row)` for each row; an exception out of `f` keeps its class and notes where it came from.

    >>> list(mapped(str.upper, "a1", Pass(epoch=0, kind="train"), "map(upper)"))
    ['A', '1']
    """
    index = now.start
    try:
        for row in rows:
            yield f(row)
            index += 1
    except Exception as error:
        blame(error, label, now, index)
        raise


def blame(error: Exception, label: str, now: Pass, index: int | None = None) -> None:
    """Note the operation, split, epoch and index of an error, unless an operation before has noted its own.

    >>> error = KeyError("x")
    >>> blame(error, "map(f)", Pass(epoch=0, kind="train"), 7)
    >>> blame(error, "batch(2)", Pass(epoch=0, kind="train"), 3)
    >>> error.__notes__
    ['at operation=map(f), split=train, epoch=0, index=7']
    """
    if any(text.startswith("at operation=") for text in getattr(error, "__notes__", ())):
        return
    where = {"operation": label, "split": now.kind, "epoch": now.epoch}
    note(error, where if index is None else where | {"index": index})


def replayed(rows: Iterator[Any], now: Pass, label: str) -> Iterator[Any]:
    """Return the rows from the pass's start on, where only reading gets there; a line in the log says how many.

    >>> list(replayed(iter("abc"), Pass(epoch=0, kind="train", start=2), "stream(open)"))
    ['c']
    """
    if not now.start:
        return rows
    _LOG.info("reading past the first %d items of %s in epoch %d", now.start, label, now.epoch)
    return _rest(rows, now.start)


def close(rows: Any) -> None:
    """Close an iterator that can be closed; one that a thread is in is left to that thread.

    >>> rows = (row for row in "abc")
    >>> close(rows)
    >>> list(rows)
    []
    """
    if not getattr(rows, "gi_running", False):
        getattr(rows, "close", lambda: None)()


def natural(value: object, what: str, least: int = 0) -> int:
    """Return `value` as an int, or raise ValueError unless it is an integer of at least `least`.

    >>> natural(2.5, "the n of take(n)")
    Traceback (most recent call last):
    ValueError: the n of take(n) must be an integer of at least 0; got 2.5
    """
    try:
        number = integer(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{what} must be an integer of at least {least}; got {value!r}")
    return number


def _rest(rows: Iterator[Any], start: int) -> Iterator[Any]:
    try:
        yield from islice(rows, start, None)
    finally:
        close(rows)  # an islice has no close of its own to pass on


START = Cursor(epoch=0, index=0)
"""The first item of the first epoch."""
