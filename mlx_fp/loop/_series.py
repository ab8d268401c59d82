"""A long list as a value."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

__all__ = ["Series"]

_CHUNK = 256


class Series(NamedTuple):
    """A long list as a value: to extend it copies no more than a few of its values.

    >>> Series().extend([0.5, 0.25]).extend([0.125]).values()
    [0.5, 0.25, 0.125]
    """

    chunks: Any = None
    """Full chunks of values as pairs `(the older ones, newest)`."""
    last: tuple[Any, ...] = ()

    def extend(self, values: Sequence[Any]) -> Series:
        """Return the list with more values."""
        chunks, last = self.chunks, (*self.last, *values)
        return Series(chunks, last) if len(last) < _CHUNK else Series((chunks, last), ())

    def newest(self, count: int) -> list[Any]:
        """Return the last so many values in order, or all where there are fewer; the older ones are not read.

        >>> Series().extend([0.5, 0.25]).extend([0.125]).newest(2)
        [0.25, 0.125]
        """
        chunks, found, size = self.chunks, [self.last], len(self.last)
        while chunks is not None and size < count:
            chunks, chunk = chunks
            found.append(chunk)
            size += len(chunk)
        return list(chain.from_iterable(reversed(found)))[max(size - count, 0) :]

    def values(self) -> list[Any]:
        """Return the values in order."""
        chunks, found = self.chunks, [self.last]
        while chunks is not None:
            chunks, chunk = chunks
            found.append(chunk)
        return list(chain.from_iterable(reversed(found)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Series) and self.values() == other.values()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(self.values()))
