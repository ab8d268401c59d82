"""Positions in the data: where a reader is, and the note of an error that is raised there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import index as integer
from typing import SupportsIndex, cast

from ..core._errors import note
from ._types import Item, ItemFunction

__all__ = [
    "CONTEXT",
    "START",
    "Cursor",
    "EpochRead",
    "close",
    "empty_epoch",
    "map_rows",
    "non_negative_int",
    "note_location",
    "skip_to",
]

CONTEXT = ("epoch", "index", "kind")
"""The context that a row function may name as parameters, in addition to its row."""

_LOG = logging.getLogger("mlx_fp.data")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the data.

    Args:
        epoch: Number of the epoch, from 0; 0 by default.
        index: Number of items of this epoch that the reader has handed out already; 0 by default.

    Raises:
        ValueError: The epoch or the index is not an integer of at least 0.

    >>> Cursor(epoch=3, index=120)
    Cursor(epoch=3, index=120)
    """

    epoch: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        non_negative_int(self.epoch, "the epoch of a Cursor")
        non_negative_int(self.index, "the index of a Cursor")


@dataclass(frozen=True, slots=True)
class EpochRead:
    """One reading of one epoch: its purpose (`"train"`, `"validation"`, `"test"`) and the index of its first item."""

    epoch: int
    kind: str
    start: int = 0
    copies: bool = False
    """Whether sources hand out copies, because a user's function gets the items and may change them in place."""


def map_rows(f: ItemFunction, rows: Iterable[Item], epoch_read: EpochRead, label: str) -> Iterator[Item]:
    """Yield `f(row)` for each row; an exception of `f` keeps its class and gets a note with its location.

    >>> list(map_rows(str.upper, "a1", EpochRead(epoch=0, kind="train"), "map(upper)"))
    ['A', '1']
    """
    index = epoch_read.start
    try:
        for row in rows:
            yield f(row)
            index += 1
    except Exception as error:
        note_location(error, label, epoch_read, index)
        raise


def note_location(error: Exception, label: str, epoch_read: EpochRead, index: int | None = None) -> None:
    """Note the operation, split, epoch and index of an error; the note of an earlier operation stays the only one.

    >>> error = KeyError("x")
    >>> note_location(error, "map(f)", EpochRead(epoch=0, kind="train"), 7)
    >>> note_location(error, "batch(2)", EpochRead(epoch=0, kind="train"), 3)
    >>> error.__notes__
    ['at operation=map(f), split=train, epoch=0, index=7']
    """
    if any(text.startswith("at operation=") for text in getattr(error, "__notes__", ())):
        return
    location = {"operation": label, "split": epoch_read.kind, "epoch": epoch_read.epoch}
    note(error, location if index is None else location | {"index": index})


def skip_to(rows: Iterator[Item], epoch_read: EpochRead, label: str) -> Iterator[Item]:
    """Read and drop the rows before the start of the read, for data without seeking; the log tells their number.

    >>> list(skip_to(iter("abc"), EpochRead(epoch=0, kind="train", start=2), "stream(open)"))
    ['c']
    """
    if not epoch_read.start:
        return rows
    _LOG.info("reading past the first %d items of %s in epoch %d", epoch_read.start, label, epoch_read.epoch)
    return _rows_from(rows, epoch_read.start)


def close(rows: object) -> None:
    """Close an iterator that has a `close` method, unless a thread runs it now: then this thread closes it later.

    >>> rows = (row for row in "abc")
    >>> close(rows)
    >>> list(rows)
    []
    """
    method: Callable[[], object] | None = getattr(rows, "close", None)
    if method is not None and not getattr(rows, "gi_running", False):
        method()


def non_negative_int(value: object, name: str, minimum: int = 0) -> int:
    """Return `value` as an int, or raise ValueError unless it is an integer of at least `minimum`.

    >>> non_negative_int(2.5, "the n of take(n)")
    Traceback (most recent call last):
    ValueError: the n of take(n) must be an integer of at least 0; got 2.5
    """
    try:
        number = integer(cast(SupportsIndex, value))
    except TypeError:
        number = minimum - 1
    if number < minimum or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer of at least {minimum}; got {value!r}")
    return number


def _rows_from(rows: Iterator[Item], start: int) -> Iterator[Item]:
    try:
        yield from islice(rows, start, None)
    finally:
        close(rows)  # an islice has no close method that would close its rows


START = Cursor(epoch=0, index=0)
"""The first item of the first epoch."""


def empty_epoch(dataset: object) -> ValueError:
    """Return the error for an epoch without a batch.

    >>> empty_epoch("stream(rows)").args[0].split("; ")[0]
    "an epoch of 'stream(rows)' gave no batch"
    """
    return ValueError(
        f"an epoch of {dataset!r} gave no batch; it needs at least one, and a stream's factory must return a fresh "
        "iterable each time"
    )
