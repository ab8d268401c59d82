"""Places in the data: where a reader stands, and what is told when something goes wrong there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import index as integer
from typing import Any, Protocol

from ..errors import located

__all__ = ["START", "Cursor", "Order", "Pass", "close", "natural", "numbered"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the data: the epoch, and how many of its items have been handed out.

    Raise ValueError unless both are integers of at least 0.

    >>> Cursor(epoch=3, index=120)
    Cursor(epoch=3, index=120)
    """

    epoch: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        natural(self.epoch, "the epoch of a Cursor")
        natural(self.index, "the index of a Cursor")


@dataclass(frozen=True, slots=True)
class Pass:
    """One reading of one epoch: what for (`"train"`, `"validation"`), and the index of its first item."""

    epoch: int
    kind: str
    start: int = 0


class Order(Protocol):
    """The indices still to be read, in order: a `range`, a `memoryview` of int64, or groups of either."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __getitem__(self, at: Any, /) -> Any: ...


def close(rows: Iterator[Any]) -> None:
    """Close an iterator that can be closed.

    >>> rows = (row for row in "abc")
    >>> close(rows)
    >>> list(rows)
    []
    """
    getattr(rows, "close", lambda: None)()


def natural(value: object, what: str, least: int = 0) -> int:
    """Return `value` as an int, or raise ValueError unless it is an integer of at least `least`.

    >>> natural(2.5, "the n of take(n)")
    Traceback (most recent call last):
    ValueError: the n of take(n) must be an integer of at least 0; got 2.5
    """
    try:
        number = integer(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{what} must be an integer of at least {least}; got {value!r}")
    return number


def numbered(
    call: Callable[[Any], Any], items: Iterable[Any], now: Pass, label: str, *, keep: bool = False
) -> Iterator[Any]:
    """Yield `call(item)`, or with `keep` the items for which it is true.

    An exception out of the call keeps its class, and notes the operation, the epoch and the item's index.

    >>> now = Pass(epoch=0, kind="train")
    >>> list(numbered(str.upper, "a1", now, "map(upper)"))
    ['A', '1']
    >>> list(numbered(str.isalpha, "a1", now, "filter(isalpha)", keep=True))
    ['a']
    """
    for index, item in enumerate(items, now.start):
        try:
            made = call(item)
        except Exception:
            with located(operation=label, epoch=now.epoch, index=index):
                raise
        if not keep:
            yield made
        elif made:
            yield item


START = Cursor(epoch=0, index=0)
"""The first item of the first epoch."""
