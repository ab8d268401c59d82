"""The share of one process in a dataset: some rows of each batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from ._cursor import Cursor, EpochRead
from ._dataset import Dataset, Operation, same_index
from ._types import Item
from ._view import Groups, Order

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


def open_share(
    dataset: Dataset, cursor: Cursor, kind: str, rank: int, size: int, cut: CutRows
) -> Generator[Share, None, None]:
    """Read the rows `rank::size` of each batch of an epoch.

    Where `batch` is the last operation on indices, and each later operation makes one batch of one batch, only these
    rows are read. Otherwise the batches are read whole, and their rows are cut.

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
    orders, rows = dataset.parts
    one_to_one = all(operation.seek is same_index for operation in rows)
    epoch_read = EpochRead(cursor.epoch, kind, cursor.index)
    order = replace(dataset, operations=orders).view(epoch_read).order if orders and one_to_one else None
    if not isinstance(order, Groups):
        yield from _cut_batches(dataset, cursor, kind, rank, size, cut)
        return
    operation = Operation("share", on_order=lambda order, epoch_read: _Cut(order, rank, size))
    shared = replace(dataset, operations=(*orders, operation, *rows))
    with closing(shared.open(cursor, kind=kind)) as batches:
        for batch, group in zip(batches, order[cursor.index :], strict=True):
            yield Share(batch, rank < len(group), len(group))


@dataclass(frozen=True, slots=True)
class _Cut:
    """An order of groups, of which each keeps the indices `rank::size`, or its first index where that is none."""

    order: Groups
    rank: int
    size: int

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Order]:
        return map(self._cut, self.order)

    def __getitem__(self, index: Any, /) -> Any:
        inner = self.order[index]
        return replace(self, order=inner) if isinstance(index, slice) else self._cut(inner)

    def _cut(self, group: Order) -> Order:
        rows = slice(self.rank, None, self.size) if self.rank < len(group) else slice(0, 1)
        return cast(Order, group[rows])


def _cut_batches(
    dataset: Dataset, cursor: Cursor, kind: str, rank: int, size: int, cut: CutRows
) -> Generator[Share, None, None]:
    with closing(dataset.open(cursor, kind=kind)) as batches:
        for batch in batches:
            part, total = cut(batch, slice(rank, None, size))
            if rank < total:
                yield Share(part, True, total)
            else:
                yield Share(cut(batch, slice(0, 1))[0], False, total)
