"""Views: the items of one epoch by index, without reading any.

Before the first row operation a pipe passes only an *order*: a `range` or a `memoryview` of int64, in which each
number is an index of the source. After `batch` an order holds groups of such indices. A view reads the item of an
index, and the batch of a group.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any, Protocol, cast

from ._cursor import EpochRead, map_rows
from ._stack import stack
from ._types import Item, ItemFunction

__all__ = ["Groups", "Order", "View", "gather", "join_views", "pick_by", "side_by_side"]


class Order(Protocol):
    """The indices that are still to be read, in order: a `range`, a `memoryview` of int64, or groups of either."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Groups:
    """An order of groups of indices: each start begins a group of up to `size` indices of `order`."""

    order: Order
    starts: Order
    size: int

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Order]:
        order, size = self.order, self.size
        return (order[start : start + size] for start in self.starts)

    def __getitem__(self, index: Any, /) -> Any:
        if isinstance(index, slice):
            return replace(self, starts=self.starts[index])
        start = self.starts[index]
        return self.order[start : start + self.size]


@dataclass(frozen=True, slots=True)
class View:
    """The items of one epoch: `pick` reads the item of an index, or the batch of a group of indices."""

    order: Order
    pick: Callable[[Any], Item]
    row: Callable[[int], Item] | None = None
    """A faster function for single indices, where there is one."""

    def __len__(self) -> int:
        return len(self.order)

    def items(self, epoch_read: EpochRead, label: str) -> Iterator[Item]:
        """Read the items from the start of the read on."""
        pick = self.row if self.row is not None and _is_flat(self.order) else self.pick
        return map_rows(pick, self.order[epoch_read.start :], epoch_read, label)

    def __getitem__(self, index: Any, /) -> Item:
        """Return the item at an index of the order; for a group of indices, or of groups, return one batch."""
        if isinstance(index, int):
            return self.pick(self.order[index])
        return self.pick(gather(self.order, index)) if _is_flat(index) else stack([self[group] for group in index])


def gather(order: Order, indices: Order) -> Order:
    """Return the entries of an order at the given indices.

    >>> gather(range(10, 20), range(2, 4))
    range(12, 14)
    """
    if isinstance(indices, range) and indices.step > 0:
        return cast(Order, order[indices.start : indices.stop : indices.step])
    if isinstance(order, Groups):
        return replace(order, starts=gather(order.starts, indices))
    if order == range(len(order)) and isinstance(indices, memoryview):
        return indices
    return _gather_flat(order, indices) if _is_flat(order) else [order[i] for i in indices]


def join_views(views: Sequence[View]) -> View:
    """Return the items of several views, one view after the other.

    >>> join_views([View(range(3), "abc".__getitem__), View(range(2), "xyz".__getitem__)])[4]
    'y'
    """
    if all(view.pick == views[0].pick for view in views):
        return replace(views[0], order=_concatenate_orders([view.order for view in views]))
    ends = list(accumulate(map(len, views)))

    def row(index: int) -> Item:
        number = bisect_right(ends, index)
        return views[number][index - (ends[number - 1] if number else 0)]

    return View(range(ends[-1]), pick_by(row))


def pick_by(row: Callable[[int], Item]) -> Callable[[Any], Item]:
    """Return the `pick` of a view whose rows are read one by one: a group of indices is a batch of their rows.

    >>> pick_by("abc".__getitem__)([2, 0])
    ['c', 'a']
    """

    def pick(index: Any) -> Item:
        return row(index) if isinstance(index, int) else stack([pick(i) for i in index])

    return pick


def side_by_side(views: Sequence[View], assemble: ItemFunction) -> View:
    """Return tuples of one item of each view, as `assemble` makes them of a list; the shortest view sets the length.

    >>> side_by_side([View(range(3), "abc".__getitem__), View(range(2), "xyz".__getitem__)], tuple)[1]
    ('b', 'y')
    """
    return View(range(min(map(len, views))), lambda index: assemble([view[index] for view in views]))


def _is_flat(order: object) -> bool:
    """Whether an order holds single indices, and not groups."""
    return isinstance(order, (range, memoryview))


def _gather_flat(order: Order, indices: Order) -> memoryview:
    """Return some indices of a flat order, with numpy where it is installed."""
    try:
        import numpy as np
    except ImportError:
        return memoryview(array("q", [order[i] for i in indices]))
    return memoryview(np.asarray(order)[np.asarray(indices)])


def _concatenate_orders(orders: Sequence[Order]) -> Order:
    if not all(map(_is_flat, orders)):
        return list(chain.from_iterable(orders))
    parts: Iterator[Any] = (array("q", order) if isinstance(order, range) else order for order in orders)
    return memoryview(b"".join(part.tobytes() for part in parts)).cast("q")
