"""A long list of numbers as a value."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple

__all__ = ["Series"]

_CHUNK = 256


class Series(NamedTuple):
    """A long list of numbers as a value: to extend it copies no more than a few of them.

    >>> Series().extend([0.5, 0.25]).extend([0.125]).values()
    [0.5, 0.25, 0.125]
    """

    chunks: Any = None
    """Full chunks of numbers, each the bytes of their float64, as pairs `(the older ones, newest)`."""
    last: tuple[float, ...] = ()

    def extend(self, values: Iterable[float]) -> Series:
        """Return the list with more numbers."""
        chunks, last = self.chunks, (*self.last, *values)
        return Series(chunks, last) if len(last) < _CHUNK else Series((chunks, array("d", last).tobytes()), ())

    def newest(self, count: int) -> list[float]:
        """Return the last so many numbers in order, or all where there are fewer; the older ones are not read.

        >>> Series().extend([0.5, 0.25]).extend([0.125]).newest(2)
        [0.25, 0.125]
        """
        chunks, found, size = self.chunks, [array("d", self.last)], len(self.last)
        while chunks is not None and size < count:
            chunks, chunk = chunks
            found.append(array("d", chunk))
            size += len(found[-1])
        return list(chain.from_iterable(reversed(found)))[max(size - count, 0) :]

    def packed(self) -> bytes:
        """Return the numbers in order as the bytes of their float64."""
        chunks, found = self.chunks, [array("d", self.last).tobytes()]
        while chunks is not None:
            chunks, chunk = chunks
            found.append(chunk)
        return b"".join(reversed(found))

    def values(self) -> list[float]:
        """Return the numbers in order."""
        return array("d", self.packed()).tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Series) and self.packed() == other.packed()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.packed())
