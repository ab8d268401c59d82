"""The shapes of the functions that an operation consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from ._cursor import EpochRead
from ._types import Item
from ._view import Groups, Order

__all__ = ["Batching", "OnOrder", "OnRows", "Seek"]


class OnRows(Protocol):
    """How an operation changes rows."""

    def __call__(self, rows: Iterator[Item], epoch_read: EpochRead, /) -> Iterator[Item]:
        """Return an iterator over the changed rows."""


class OnOrder(Protocol):
    """How an operation changes an order of indices, without reading items."""

    def __call__(self, order: Order, epoch_read: EpochRead, /) -> Order:
        """Return the changed order."""


class Seek(Protocol):
    """Where an operation must begin to read its input."""

    def __call__(self, output_index: int, epoch_read: EpochRead, /) -> int:
        """Return the index of the first input item that the output item `output_index` is made of."""


class Batching(NamedTuple):
    """How an operation makes batches of rows."""

    size: int
    drop_last: bool
    stack: Callable[[list[Item]], Item]

    def count(self, rows: int) -> int:
        """Return the number of batches of a number of rows."""
        return rows // self.size if self.drop_last else -(-rows // self.size)

    def groups(self, order: Order) -> Groups:
        """Return the indices of each batch."""
        return Groups(order, range(0, self.count(len(order)) * self.size, self.size), self.size)
