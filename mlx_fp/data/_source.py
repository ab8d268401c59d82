"""Sources of items: a sequence of rows, or a function that makes an iterator for each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, cast

from ..core._context import with_context
from ._call_text import call_text
from ._cursor import EpochRead, close, note_location, skip_to
from ._dataset import Dataset, Source
from ._evaluated import evaluate_arrays
from ._item_copies import copy_batch, copy_item
from ._stack import stack
from ._tables import refuse_table
from ._types import Item, ItemFunction
from ._view import View

__all__ = ["Rows", "as_dataset", "refuse_iterator", "source", "stream"]


class Rows(Protocol):
    """Rows that an integer selects, for example a list."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Item: ...


def source(sequence: object) -> Dataset:
    """Return the dataset of the rows of a sequence.

    Args:
        sequence: Any object with `__len__` and `__getitem__`, for example a list of dicts. An MLX array is evaluated
            here, and so are the MLX arrays in a list or tuple of rows.

    Raises:
        TypeError: The object is an iterator, which could be read only once; a mapping; a table of pandas, polars or
            pyarrow, which an integer does not index by row; or another object without both methods. The message has
            the remedy.

    >>> list(source(["a", "b"]))
    ['a', 'b']
    >>> source(letter for letter in "ab")
    Traceback (most recent call last):
    TypeError: source cannot take a generator, which can be read only once: write stream(lambda: a new one)
    """
    refuse_iterator("source", sequence)
    refuse_table("source", sequence)
    kind = type(sequence).__name__
    if isinstance(sequence, Mapping):
        raise TypeError(f"source takes rows, not a {kind}: for a dict of columns write arrays(**columns)")
    if not (hasattr(sequence, "__len__") and hasattr(sequence, "__getitem__")):
        raise TypeError(
            f"source takes an object with __len__ and __getitem__, not a {kind}: write stream(lambda: a new iterator)"
        )
    rows = evaluate_arrays(cast(Rows, sequence))  # other threads could not read lazy arrays
    size = len(rows)
    shared, copied = _row_views(rows, size)
    label, fingerprint = f"source({kind} of {size})", getattr(sequence, "_fingerprint", None)  # Hugging Face has one
    return Dataset(
        Source(
            label,
            size,
            view=lambda epoch_read: copied if epoch_read.copies else shared,
            fingerprint=(lambda: fingerprint) if isinstance(fingerprint, str) else None,
        )
    )


def stream(factory: Callable[..., Iterable[Item]]) -> Dataset:
    """Return the dataset of the items of an iterable that a function makes for each epoch.

    The iterator is closed when the reader is closed.

    Args:
        factory: Function that returns an iterable. It is called once per epoch, and gets `epoch` and `kind` where it
            has parameters with these names.

    Raises:
        TypeError: `factory` is not callable or requires another parameter. When the data are read: it returns no
            iterable.

    >>> from mlx_fp.data import Cursor
    >>> list(stream(lambda epoch: iter([epoch, epoch + 1])).open(Cursor(epoch=5)))
    [5, 6]
    """
    refuse_iterator("stream", factory)
    if not callable(factory):
        raise TypeError(f"stream takes a function that returns an iterable; got {type(factory).__name__}")
    label = call_text("stream", factory)
    call = with_context(factory, offers=("epoch", "kind"), values=0, what="stream factory")
    return Dataset(
        Source(
            label,
            rows=lambda epoch_read: skip_to(_stream_rows(call, epoch_read, label), epoch_read, label),
            varies=bool(call.context),
        )
    )


def as_dataset(data: object) -> Dataset:
    """Return a Dataset unchanged, and other data as `source(data)`.

    Args:
        data: A Dataset, or any object with `__len__` and `__getitem__`. For example, a list of batches.

    Raises:
        TypeError: The object is neither; the message has the remedy, as for `source`.

    >>> as_dataset([(1, 2), (3, 4)])
    source(list of 2)
    """
    return data if isinstance(data, Dataset) else source(data)


def refuse_iterator(verb: str, rows: object) -> None:
    """Raise TypeError for an iterator, because it could be read only once.

    >>> refuse_iterator("source", [1, 2])
    """
    if isinstance(rows, Iterator):
        kind = type(rows).__name__
        raise TypeError(f"{verb} cannot take a {kind}, which can be read only once: write stream(lambda: a new one)")


def _row_views(rows: Rows, size: int) -> tuple[View, View]:
    """Return a view of the rows themselves, and a view of copies."""
    row, pick = rows.__getitem__, _row_picker(rows)

    def copied_row(index: int) -> Item:
        return copy_item(row(index))

    def copied_pick(index: object) -> Item:
        return copied_row(index) if isinstance(index, int) else copy_batch(pick(index))

    return View(range(size), pick, row), View(range(size), copied_pick, copied_row)


def _row_picker(rows: Rows) -> ItemFunction:
    """Return the function that reads the row of an index, or the batch of a group of indices.

    Rows with `__getitems__`, the name that Hugging Face and torch use, are read with one call for a group.
    """
    row, read_many = rows.__getitem__, getattr(rows, "__getitems__", None)

    def pick(index: Item) -> Item:
        if isinstance(index, int):
            return row(index)
        if read_many is not None and isinstance(index, (memoryview, range)):
            return stack(read_many(list(index)))
        return stack([pick(i) for i in index])

    return pick


def _iterator(rows: object, label: str) -> Iterator[Item]:
    if not hasattr(rows, "__iter__"):
        raise TypeError(f"the factory of {label} returns an iterable; it returned {rows!r}")
    if isinstance(rows, Mapping):
        kind = type(rows).__name__
        raise TypeError(f"the factory of {label} returns rows, not a {kind}, whose iterator yields its keys")
    refuse_table(f"the factory of {label}", rows, iterated=True)
    return iter(cast(Iterable[Item], rows))


def _stream_rows(call: Callable[..., object], epoch_read: EpochRead, label: str) -> Iterator[Item]:
    index = 0
    rows: Iterator[Item] = iter(())
    try:
        rows = _iterator(call(epoch=epoch_read.epoch, kind=epoch_read.kind), label)
        for row in rows:
            yield copy_item(row) if epoch_read.copies else row
            index += 1
    except Exception as error:
        note_location(error, label, epoch_read, index)
        raise
    finally:
        close(rows)
