"""Views: the items of one pass by number, without reading any.

What stands before the first row operation of a pipe is an *order*: a `range` or a `memoryview` of int64, each an
index of the source, or groups of them after a batch. A view picks what an order says.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from math import inf
from typing import Any, Protocol

from ._cursor import Pass, mapped
from ._stack import stack

__all__ = ["Groups", "Order", "View", "check_within", "gather", "join", "side_by_side"]


class Order(Protocol):
    """The indices still to be read, in order: a `range`, a `memoryview` of int64, or groups of either."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __getitem__(self, at: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Groups:
    """An order of groups of indices: at each start, up to `size` of them."""

    order: Order
    starts: Order
    size: int

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Any]:
        order, size = self.order, self.size
        return (order[start : start + size] for start in self.starts)

    def __getitem__(self, at: Any, /) -> Any:
        if isinstance(at, slice):
            return replace(self, starts=self.starts[at])
        start = self.starts[at]
        return self.order[start : start + self.size]


@dataclass(frozen=True, slots=True)
class View:
    """The items of a pass: `pick` makes one of what the order holds, an index or a group of them."""

    order: Order
    pick: Callable[[Any], Any]
    row: Callable[[int], Any] | None = None
    """What picks an index alone, where there is something quicker."""

    def __len__(self) -> int:
        return len(self.order)

    def items(self, now: Pass, label: str) -> Iterator[Any]:
        """Read the items from the pass's start on."""
        pick = self.row if self.row is not None and _is_flat(self.order) else self.pick
        return mapped(pick, self.order[now.start :], now, label)

    def __getitem__(self, at: Any, /) -> Any:
        """Return the item at a number, or of a group of numbers, or of such groups, the items as one batch."""
        if isinstance(at, int):
            return self.pick(self.order[at])
        return self.pick(gather(self.order, at)) if _is_flat(at) else stack([self[one] for one in at])


def gather(order: Order, at: Any) -> Order:
    """Return the order with its items in the places that `at`, a group of numbers, says.

    >>> gather(range(10, 20), range(2, 4))
    range(12, 14)
    """
    if isinstance(at, range) and at.step > 0:
        part: Order = order[at.start : at.stop : at.step]
        return part
    if isinstance(order, Groups):
        return replace(order, starts=gather(order.starts, at))
    if order == range(len(order)) and isinstance(at, memoryview):
        return at
    return _picked(order, at) if _is_flat(order) else [order[i] for i in at]


def check_within(order: Any, known: Any) -> None:
    """Raise IndexError for an order that goes beyond the indices of another: arrays of MLX's read others unchecked.

    >>> check_within(memoryview(array("q", [0, 7])), range(5))
    Traceback (most recent call last):
    IndexError: the order given has indices from 0 to 4, and the one returned from 0 to 7
    """
    (low, high), (least, most) = _ends(known), _ends(order)
    if least < low or most > high:
        told = f"from {least} to {most}"
        raise IndexError(f"the order given has indices from {low} to {high}, and the one returned {told}")


def join(views: Sequence[View]) -> View:
    """Return the items of several views, one view after the other.

    >>> join([View(range(3), "abc".__getitem__), View(range(2), "xyz".__getitem__)])[4]
    'y'
    """
    if all(view.pick == views[0].pick for view in views):
        return replace(views[0], order=_joined([view.order for view in views]))
    ends = list(accumulate(map(len, views)))

    def pick(at: Any) -> Any:
        if isinstance(at, int):
            part = bisect_right(ends, at)
            return views[part][at - (ends[part - 1] if part else 0)]
        return stack([pick(i) for i in at])

    return View(range(ends[-1]), pick)


def side_by_side(views: Sequence[View], together: Callable[[list[Any]], Any]) -> View:
    """Return the items of several views, one of each together, as many as the shortest has.

    >>> side_by_side([View(range(3), "abc".__getitem__), View(range(2), "xyz".__getitem__)], tuple)[1]
    ('b', 'y')
    """
    return View(range(min(map(len, views))), lambda at: together([view[at] for view in views]))


def _is_flat(order: Order) -> bool:
    return isinstance(order, (range, memoryview))


def _ends(order: Any) -> tuple[float, float]:
    """Return the least and the largest index of an order."""
    if isinstance(order, int):
        return order, order
    if isinstance(order, Groups):
        return _ends(order.order)
    if not len(order):
        return inf, -inf
    if not _is_flat(order):
        least, most = zip(*map(_ends, order), strict=True)
        return min(least), max(most)
    if isinstance(order, range):
        return min(order[0], order[-1]), max(order[0], order[-1])
    return min(order), max(order)


def _picked(order: Order, at: Any) -> memoryview:
    """Return some indices of a flat order, by numpy where it is there."""
    try:
        import numpy as np
    except ImportError:
        return memoryview(array("q", [order[i] for i in at]))
    return memoryview(np.asarray(order)[np.asarray(at)])


def _joined(orders: Sequence[Order]) -> Order:
    if not all(map(_is_flat, orders)):
        return list(chain.from_iterable(orders))
    parts: Iterator[Any] = (array("q", order) if isinstance(order, range) else order for order in orders)
    return memoryview(b"".join(part.tobytes() for part in parts)).cast("q")
