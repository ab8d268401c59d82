"""Check the order of indices that a user's operation returns, because MLX reads indices beyond an array unchecked."""

from __future__ import annotations

from math import inf

from ._protocols import OnOrder
from ._view import Groups, Order

__all__ = ["check_order"]

_PACKAGE = __name__.partition(".")[0]


def check_order(on_order: OnOrder, returned: Order, order: Order) -> None:
    """Raise IndexError if a user's `on_order` returns indices outside the range of the order that it was given.

    >>> check_order(print, range(8), range(5))
    Traceback (most recent call last):
    IndexError: the order given has indices from 0 to 4, and the one returned from 0 to 7
    """
    if getattr(on_order, "__module__", "").partition(".")[0] == _PACKAGE:
        return
    (low, high), (minimum, maximum) = _index_range(order), _index_range(returned)
    if minimum < low or maximum > high:
        expected = f"the order given has indices from {low} to {high}"
        raise IndexError(f"{expected}, and the one returned from {minimum} to {maximum}")


def _index_range(order: Order | int) -> tuple[float, float]:
    """Return the minimum and the maximum index of an order."""
    if isinstance(order, int):
        return order, order
    if isinstance(order, Groups):
        return _index_range(order.order)
    if not len(order):
        return inf, -inf
    if isinstance(order, range):
        return min(order[0], order[-1]), max(order[0], order[-1])
    if isinstance(order, memoryview):
        return min(order), max(order)
    minimums, maximums = zip(*map(_index_range, order), strict=True)
    return min(minimums), max(maximums)
