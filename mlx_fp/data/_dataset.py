"""A dataset is a source and a tuple of operations, both frozen; reading it is a pure function of a cursor.

Up to the first row operation what flows is an *order* of indices (see `view`), and nothing is read. From there on
rows flow, each operation an iterator over the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ..core._pickling import Picklable
from ._cursor import START, Cursor, Pass, blame, close, replayed
from ._view import Order, View, check_within

__all__ = ["Dataset", "Operation", "Source", "same"]


def same(index: int, now: Pass) -> int:
    """Say that item `index` out is made of item `index` in.

    >>> same(7, Pass(epoch=0, kind="train"))
    7
    """
    return index


@dataclass(frozen=True, slots=True)
class Source(Picklable):
    """Where items come from: `view` of a pass gives them by number, `rows` of a pass reads them from its start on."""

    label: str
    size: int | None = None
    view: Callable[[Pass], View] | None = None
    rows: Callable[[Pass], Iterator[Any]] | None = None
    chain: tuple[str, ...] = ()
    """The pipe before, in words, where an operation made this source."""


@dataclass(frozen=True, slots=True)
class Operation(Picklable):
    """A verb `dataset -> dataset`: what it does to an order, to rows, or to both, and to their number.

    Without `on_order` it starts the row part of the pipe; without `on_rows` it must come before that part.
    `seek(index, now)` says which item in the item `index` out begins at; there `on_rows` is given rows from that item
    on, and `now.start` is `index`. Without `seek` it reads from the first item, and what was handed out is read again.
    `whole` makes a new source of the dataset instead. Where `calls` is true, sources give it items of its own, which
    it may change in place.

    >>> from mlx_fp.data import source
    >>> twice = Operation("twice", on_rows=lambda rows, now: (2 * row for row in rows), seek=same)
    >>> twice(source([1, 2, 3]))
    pipe(source(list of 3), twice)
    """

    label: str
    on_rows: Callable[[Iterator[Any], Pass], Iterator[Any]] | None = None
    on_order: Callable[[Order, Pass], Order] | None = None
    size: Callable[[int], int | None] = lambda size: None
    seek: Callable[[int, Pass], int] | None = None
    whole: Callable[[Dataset], Source] | None = None
    needs: str = ""
    """What to do where indices are needed and rows come."""
    calls: bool = True
    """Whether a function of the user's gets the items, which it may change in place."""

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return the dataset with this operation after its others."""
        if not isinstance(dataset, Dataset):
            got = type(dataset).__name__
            raise TypeError(f"{self.label} takes a Dataset, not a {got}: begin with source, arrays or stream")
        if self.on_rows is None and self.whole is None and not dataset.indexed:
            rows = dataset.parts[1]
            before = rows[0].label if dataset.source.view and rows else dataset.source.label
            raise ValueError(f"{self.label} needs indices, but {before} before it gives rows{self.needs}")
        if self.whole is not None:
            return Dataset(replace(self.whole(dataset), chain=dataset.labels))
        return replace(dataset, operations=(*dataset.operations, self))

    def __repr__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class Dataset(Picklable):
    """A source and the operations on it; every `iter()` reads epoch 0 afresh.

    `len()` is the number of items of an epoch, TypeError where only reading can tell.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> squares = pipe(data.source(range(5)), data.take(4), data.map(lambda n: n * n))
    >>> squares
    pipe(source(range of 5), take(4), map(<lambda>))
    >>> len(squares), list(squares), list(squares.open(data.Cursor(epoch=1, index=2)))
    (4, [0, 1, 4, 9], [4, 9])
    """

    source: Source
    operations: tuple[Operation, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return self.open()

    def __len__(self) -> int:
        size = self.size
        if size is None:
            raise TypeError(f"{self!r} has no len(): {self._unsized()} does not say how many items it gives")
        return size

    def __repr__(self) -> str:
        return f"pipe({', '.join(self.labels)})" if len(self.labels) > 1 else self.labels[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The pipe, in words."""
        return (*self.source.chain, self.source.label, *(operation.label for operation in self.operations))

    @property
    def size(self) -> int | None:
        """How many items an epoch has, None where only reading can tell."""
        size = self.source.size
        for operation in self.operations:
            size = None if size is None else operation.size(size)
        return size

    def _unsized(self) -> str:
        steps = [replace(self, operations=self.operations[:n]) for n in range(len(self.operations) + 1)]
        return next(step.labels[-1] for step in steps if step.size is None)

    @property
    def indexed(self) -> bool:
        """Whether nothing but indices flows, so that an operation like `shuffle` may follow."""
        return self.source.view is not None and not self.parts[1]

    @property
    def parts(self) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
        """The operations that act on indices, and from the first one that cannot, those that act on rows."""
        rows = (i for i, operation in enumerate(self.operations) if operation.on_order is None)
        first = 0 if self.source.view is None else next(rows, len(self.operations))
        return self.operations[:first], self.operations[first:]

    def open(self, cursor: Cursor = START, *, kind: str = "train") -> Generator[Any, None, None]:
        """Return an iterator over the items of the cursor's epoch that are left, from the cursor's index on.

        It seeks past what need not be read, index operations, `map` and `batch` among it; an operation that only
        reading can place, such as `filter`, or a stream, is read again up to there, and a line in the log says so.
        Nothing runs before the first item is asked for. `close()` it to abandon it early: so are its sources.
        """
        if not isinstance(cursor, Cursor):
            raise TypeError(f"open takes a Cursor(epoch, index); got {cursor!r}")
        return self.read(Pass(cursor.epoch, kind, cursor.index))

    def read(self, now: Pass) -> Generator[Any, None, None]:
        """Return an iterator over the items of a pass from its start on; see `open`."""
        return _read(self, now)

    def view(self, now: Pass) -> View:
        """Return the items of a pass by number; only where `indexed`."""
        return _view(self.source, self.operations, now)


def _view(source: Source, operations: tuple[Operation, ...], now: Pass) -> View:
    view = source.view(now)  # type: ignore[misc]  # asked for only where there is one
    order = view.order
    for operation in operations:
        try:
            order, given = operation.on_order(order, now), order  # type: ignore[misc]  # so says `parts`
            if not _is_ours(operation.on_order):
                check_within(order, given)
        except Exception as error:
            blame(error, operation.label, now)
            raise
    return replace(view, order=order)


def _is_ours(fn: Any) -> bool:
    return getattr(fn, "__module__", "").partition(".")[0] == __name__.partition(".")[0]


def _read(dataset: Dataset, now: Pass) -> Generator[Any, None, None]:
    """Open each part at the item that the part after it begins with, and hand out what the last one gives."""
    indexed, rest = dataset.parts
    if any(operation.calls for operation in rest):
        now = replace(now, owned=True)
    passes = _passes(rest, now)
    with ExitStack() as opened:
        rows = _first(dataset.source, indexed, passes[0])
        opened.callback(close, rows)
        for operation, at in zip(rest, passes[1:], strict=True):
            rows = _next(operation, rows, at)
            opened.callback(close, rows)
        yield from rows


def _passes(operations: tuple[Operation, ...], now: Pass) -> list[Pass]:
    """Return the pass of the source and of each operation, from the last one's start back."""
    passes = [now]
    for operation in reversed(operations):
        try:
            start = 0 if operation.seek is None else operation.seek(passes[0].start, now)
        except Exception as error:
            blame(error, operation.label, now)
            raise
        passes.insert(0, replace(now, start=start))
    return passes


def _first(source: Source, operations: tuple[Operation, ...], now: Pass) -> Iterator[Any]:
    if source.view is None:
        return source.rows(now)  # type: ignore[misc]  # a source has one of the two
    return _view(source, operations, now).items(now, source.label)


def _next(operation: Operation, rows: Iterator[Any], now: Pass) -> Iterator[Any]:
    try:
        if operation.seek is not None:
            return operation.on_rows(rows, now)  # type: ignore[misc]  # __call__ let no other in
        return replayed(operation.on_rows(rows, replace(now, start=0)), now, operation.label)  # type: ignore[misc]
    except Exception as error:
        blame(error, operation.label, now)
        raise
