"""A dataset is a source and a tuple of operations, both frozen; reading it is a pure function of a cursor.

Up to the first row operation what flows is an *order*: integers, or groups of integers after a batch. There
the source makes a row or a batch of each, and from there on items flow.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ..errors import located
from .place import START, Cursor, Order, Pass, close, numbered

__all__ = ["Dataset", "Operation", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from: `pick` reads one index or a group of them; a stream has `rows` instead."""

    label: str
    size: int | None = None
    pick: Callable[[Any], Any] | None = None
    rows: Callable[[Pass], Iterator[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A verb `dataset -> dataset`: what it does to an order, to rows, or to both, and to their number.

    Without `on_order` it starts the row part of the pipe; without `on_rows` it must come before that part.
    An operation is `exact` when item `i` out is made of item `i` in, so that a reader may start anywhere.

    >>> from mlx_fp.data import source
    >>> twice = Operation("twice", on_rows=lambda rows, now: (2 * row for row in rows), exact=True)
    >>> twice(source([1, 2, 3]))
    pipe(source(list of 3), twice)
    """

    label: str
    on_rows: Callable[[Iterator[Any], Pass], Iterator[Any]] | None = None
    on_order: Callable[[Order, Pass], Order] | None = None
    size: Callable[[int], int | None] = lambda size: None
    exact: bool = False

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return the dataset with this operation after its others."""
        if not isinstance(dataset, Dataset):
            got = type(dataset).__name__
            raise TypeError(f"{self.label} takes a Dataset, not a {got}: begin with source, arrays or stream")
        streams, rows = dataset.source.pick is None, dataset.parts[1]
        if self.on_rows is None and (streams or rows):
            before = dataset.source.label if streams else rows[0].label
            raise ValueError(f"{self.label} needs indices, but {before} before it gives rows")
        return replace(dataset, operations=(*dataset.operations, self))

    def __repr__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class Dataset:
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
        size, of = self.source.size, self.source.label
        for operation in self.operations:
            if size is not None:
                size, of = operation.size(size), operation.label
        if size is None:
            raise TypeError(f"{self!r} has no len(): {of} does not say how many items it gives")
        return size

    def __repr__(self) -> str:
        labels = [self.source.label, *(operation.label for operation in self.operations)]
        return f"pipe({', '.join(labels)})" if self.operations else self.source.label

    @property
    def parts(self) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
        """The operations that act on indices, and from the first one that cannot, those that act on rows."""
        rows = (i for i, operation in enumerate(self.operations) if operation.on_order is None)
        first = 0 if self.source.pick is None else next(rows, len(self.operations))
        return self.operations[:first], self.operations[first:]

    def open(self, cursor: Cursor = START, *, kind: str = "train") -> Generator[Any, None, None]:
        """Return an iterator over the items of the cursor's epoch that are left, from the cursor's index on.

        It seeks if nothing but `map` follows the index operations; else it reads and drops the items before.
        Nothing runs before the first item is asked for. `close()` it to abandon it early: so are its sources.
        """
        return _read(self, cursor, kind)


def _read(dataset: Dataset, cursor: Cursor, kind: str) -> Generator[Any, None, None]:
    indexed, rest = dataset.parts
    seeks = dataset.source.pick is not None and all(operation.exact for operation in rest)
    now = Pass(cursor.epoch, kind, cursor.index if seeks else 0)
    with ExitStack() as opened:
        rows = _first(dataset.source, indexed, now)
        opened.callback(close, rows)
        for operation in rest:
            with located(operation=operation.label, epoch=now.epoch):
                rows = operation.on_rows(rows, now)  # type: ignore[misc]  # __call__ let no other in
            opened.callback(close, rows)
        yield from islice(rows, cursor.index - now.start, None)


def _first(source: Source, operations: tuple[Operation, ...], now: Pass) -> Iterator[Any]:
    """Return the rows of a stream, or what the source picks by the order that the index operations give."""
    if source.pick is None:
        return source.rows(now)  # type: ignore[misc]  # a source has one of the two
    order: Order = range(source.size or 0)
    for operation in operations:
        with located(operation=operation.label, epoch=now.epoch):
            order = operation.on_order(order, now)  # type: ignore[misc]  # so says `parts`
    return numbered(source.pick, order[now.start :], now, source.label)
