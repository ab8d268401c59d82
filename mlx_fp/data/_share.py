"""The share of one process in a dataset: some rows of each batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from ..tree._paths import leaves
from ._cursor import Cursor, EpochRead, map_rows, note_location
from ._dataset import Dataset, Operation
from ._protocols import Batching
from ._source_record import Source
from ._types import Item
from ._view import Groups, Order, View

__all__ = ["CutRows", "Share", "open_share"]

CutRows = Callable[[Item, slice], "tuple[Item, int]"]
"""`cut(batch, rows) -> (part, total)`: cut rows out of a batch, and count the rows of the whole batch."""


class Share(NamedTuple):
    """The rows of a batch that are of one process."""

    batch: Item
    """The rows. Where the process has none, one row that does not count."""
    counts: bool
    """Whether the rows count."""
    total: int
    """The number of rows of the whole batch."""
    shapes: object
    """A description of the whole batch. Batches of one description have the same shapes, and it is the same in all
    processes. The shapes of `batch` itself are not."""


def open_share(
    dataset: Dataset, cursor: Cursor, kind: str, rank: int, size: int, cut: CutRows
) -> Generator[Share, None, None]:
    """Read the rows `rank::size` of each batch of an epoch.

    Only these rows are read where the dataset has indices, each operation before `batch` treats each row alone, and
    each operation after it `divides`. Otherwise the batches are read whole, and their rows are cut.

    Args:
        dataset: A dataset of batches.
        cursor: The position to start from, in batches.
        kind: The purpose of the read, as for `Dataset.open`.
        rank: The number of the process.
        size: The number of processes.
        cut: The function that cuts rows out of a batch.

    >>> from mlx_fp import data
    >>> batches = data.batch(4)(data.source(range(6)))
    >>> def cut(batch, rows):
    ...     return batch[rows], len(batch)
    >>> [(share.batch.tolist(), share.total) for share in open_share(batches, Cursor(), "train", 1, 2, cut)]
    [([1, 3], 4), ([5], 2)]
    """
    own = _own_rows(dataset, cursor, kind, slice(rank, None, size))
    if own is None:
        yield from _cut_batches(dataset, cursor, kind, slice(rank, None, size), cut)
        return
    shared, totals = own
    with closing(shared.open(cursor, kind=kind)) as batches:
        for batch, total in zip(batches, totals, strict=True):
            yield Share(batch, rank < total, total, total)


def _own_rows(dataset: Dataset, cursor: Cursor, kind: str, own: slice) -> tuple[Dataset, Iterator[int]] | None:
    """Return the dataset of some rows of each batch, and the numbers of rows of the whole batches.

    None where the dataset has to be read whole.
    """
    orders, rows = dataset.parts
    if dataset.source.view is None:
        return None
    indices = replace(dataset, operations=orders)
    order = indices.view(EpochRead(cursor.epoch, kind)).order
    if isinstance(order, Groups):
        if not all(operation.divides for operation in rows):
            return None
        operation = Operation("share", on_order=lambda order, epoch_read: _OwnIndices(cast(Groups, order), own))
        return replace(dataset, operations=(*orders, operation, *rows)), map(len, order[cursor.index :])
    place = next((i for i, operation in enumerate(rows) if operation.batching is not None), None)
    if place is None:
        return None
    before, after = rows[:place], rows[place + 1 :]
    if not all(operation.bind for operation in before) or not all(operation.divides for operation in after):
        return None
    source = Source(rows[place].label, rows=_OwnBatches(indices, before, rows[place], own))
    whole = cast(Batching, rows[place].batching).groups(order)
    return Dataset(source, after), map(len, whole[cursor.index :])


@dataclass(frozen=True, slots=True)
class _OwnIndices:
    """An order of groups, of which each keeps some indices, or its first index where that is none."""

    order: Groups
    own: slice

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Order]:
        return map(self._cut, self.order)

    def __getitem__(self, index: Any, /) -> Any:
        inner = self.order[index]
        return replace(self, order=inner) if isinstance(index, slice) else self._cut(inner)

    def _cut(self, group: Order) -> Order:
        return cast(Order, group[self.own] if self.own.start < len(group) else group[:1])


@dataclass(frozen=True, slots=True)
class _OwnBatches:
    """Some rows of each batch, of operations that treat each row alone, and of an operation that makes batches."""

    indices: Dataset
    before: tuple[Operation, ...]
    batch: Operation
    own: slice

    def __call__(self, epoch_read: EpochRead) -> Iterator[Item]:
        read = replace(epoch_read, copies=any(operation.calls for operation in self.before))
        view, batching = self.indices.view(read), cast(Batching, self.batch.batching)
        groups = _OwnIndices(batching.groups(range(len(view))), self.own)[epoch_read.start :]
        rows = ([self._row(view, index, read) for index in group] for group in groups)
        return map_rows(batching.stack, rows, epoch_read, self.batch.label)

    def _row(self, view: View, index: int, epoch_read: EpochRead) -> Item:
        place, label = replace(epoch_read, start=index), self.indices.labels[-1]
        try:
            row = view[index]
            for operation in self.before:
                label = operation.label
                row = operation.bind(place)(row)  # type: ignore[misc]  # the caller has checked that it is there
        except Exception as error:
            note_location(error, label, epoch_read, index)
            raise
        return row


def _cut_batches(dataset: Dataset, cursor: Cursor, kind: str, own: slice, cut: CutRows) -> Generator[Share, None, None]:
    with closing(dataset.open(cursor, kind=kind)) as batches:
        for batch in batches:
            part, total = cut(batch, own)
            counts = own.start < total
            shapes = [(leaf.shape, leaf.dtype) for leaf in leaves(batch) if hasattr(leaf, "shape")]
            yield Share(part if counts else cut(batch, slice(0, 1))[0], counts, total, shapes)
