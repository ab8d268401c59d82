"""A long list of numbers as a value."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple, Optional

__all__ = ["Series"]

_CHUNK = 256
"""Numbers in a full chunk."""

Chunks = Optional["tuple[Chunks, bytes]"]
"""Full chunks as pairs `(older chunks, newest chunk)`; None: no chunk."""


class Series(NamedTuple):
    """A long list of numbers as a value. To extend it copies at most one chunk of numbers.

    >>> Series().extend([0.5, 0.25]).extend([0.125]).values()
    [0.5, 0.25, 0.125]
    """

    chunks: Chunks = None
    """Full chunks of numbers, each the bytes of their float64."""
    last: tuple[float, ...] = ()

    def extend(self, values: Iterable[float]) -> Series:
        """Return the list with more numbers."""
        chunks, last = self.chunks, (*self.last, *values)
        return Series(chunks, last) if len(last) < _CHUNK else Series((chunks, array("d", last).tobytes()), ())

    def newest(self, count: int) -> list[float]:
        """Return the last `count` numbers in order, or all where there are fewer. Older chunks are not read.

        >>> Series().extend([0.5, 0.25]).extend([0.125]).newest(2)
        [0.25, 0.125]
        """
        chunks, parts, size = self.chunks, [array("d", self.last)], len(self.last)
        while chunks is not None and size < count:
            chunks, chunk = chunks
            parts.append(array("d", chunk))
            size += len(parts[-1])
        return list(chain.from_iterable(reversed(parts)))[max(size - count, 0) :]

    def packed(self) -> bytes:
        """Return the numbers in order as the bytes of their float64."""
        chunks, parts = self.chunks, [array("d", self.last).tobytes()]
        while chunks is not None:
            chunks, chunk = chunks
            parts.append(chunk)
        return b"".join(reversed(parts))

    def values(self) -> list[float]:
        """Return the numbers in order."""
        return array("d", self.packed()).tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Series) and self.packed() == other.packed()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.packed())
