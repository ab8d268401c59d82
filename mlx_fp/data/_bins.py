"""Which sequences share a row: bins of sequences by their lengths alone, before any token is read."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

__all__ = ["FITS", "Bins", "Fit", "Piece", "Sequences"]

Sequences: TypeAlias = Iterable[tuple[Any, int]]
"""Keys of sequences and their lengths, in order. A key is an index, or the sequence itself."""

Piece: TypeAlias = tuple[Any, int, int]
"""The tokens of a sequence from `start` to `stop`, as `(key, start, stop)`."""

Fit: TypeAlias = Callable[[Sequences, int], Iterator[list[Piece]]]
"""`fit(sequences, length)` yields bins, lists of pieces with `length` tokens at most."""

_OPEN = 64
"""The maximum number of bins that wait for more sequences."""


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of one epoch, by number: the pieces of all bins one after the other, and where each bin ends."""

    keys: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    stops: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))

    @classmethod
    def of(cls, bins: Iterable[list[Piece]]) -> Bins:
        """Gather bins whose keys are indices.

        >>> Bins.of([[(3, 0, 2), (1, 0, 4)], [(0, 0, 5)]])[1]
        [(0, 0, 5)]
        """
        gathered = cls()
        for pieces in bins:
            for column, values in zip(
                (gathered.keys, gathered.starts, gathered.stops), zip(*pieces, strict=True), strict=True
            ):
                column.extend(values)
            gathered.ends.append(len(gathered.keys))
        return gathered

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> list[Piece]:
        """Return the pieces of a bin."""
        part = slice(self.ends[number - 1] if number else 0, self.ends[number])
        return list(zip(self.keys[part], self.starts[part], self.stops[part], strict=True))


def _best_fit(sequences: Sequences, length: int) -> Iterator[list[Piece]]:
    """Put each sequence into the bin in which it leaves the least room.

    A full bin is handed out. Where too many bins are open, the fullest bin is handed out.

    >>> list(_best_fit([("a", 3), ("b", 4), ("c", 2), ("d", 1)], 5))
    [[('a', 0, 3), ('c', 0, 2)], [('b', 0, 4), ('d', 0, 1)]]
    """
    rooms: list[int] = []  # in rising order
    bins: list[list[Piece]] = []
    for key, size in sequences:
        at = bisect_left(rooms, size)
        room, pieces = (rooms.pop(at), bins.pop(at)) if at < len(rooms) else (length, [])
        pieces.append((key, 0, size))
        if room == size:
            yield pieces
            continue
        at = bisect_left(rooms, room - size)
        rooms.insert(at, room - size)
        bins.insert(at, pieces)
        if len(bins) > _OPEN:
            del rooms[0]
            yield bins.pop(0)
    yield from bins


def _first_fit(sequences: Sequences, length: int) -> Iterator[list[Piece]]:
    """Put each sequence into the oldest bin that has room for it.

    A full bin is handed out. Where too many bins are open, the oldest bin is handed out.

    >>> list(_first_fit([("a", 3), ("b", 4), ("c", 1), ("d", 1)], 5))
    [[('a', 0, 3), ('c', 0, 1), ('d', 0, 1)], [('b', 0, 4)]]
    """
    rooms: list[int] = []
    bins: list[list[Piece]] = []
    for key, size in sequences:
        at = next((i for i, room in enumerate(rooms) if room >= size), len(rooms))
        if at == len(rooms):
            rooms.append(length)
            bins.append([])
        rooms[at] -= size
        bins[at].append((key, 0, size))
        if not rooms[at] or len(bins) > _OPEN:
            at = 0 if rooms[at] else at
            del rooms[at]
            yield bins.pop(at)
    yield from bins


def _concat(sequences: Sequences, length: int) -> Iterator[list[Piece]]:
    """Join all sequences, and cut the whole at each `length`.

    >>> list(_concat([("a", 3), ("b", 4)], 5))
    [[('a', 0, 3), ('b', 0, 2)], [('b', 2, 4)]]
    """
    room, pieces = length, list[Piece]()
    for key, size in sequences:
        start = 0
        while start < size:
            stop = min(size, start + room)
            pieces.append((key, start, stop))
            room, start = room - (stop - start), stop
            if not room:
                yield pieces
                room, pieces = length, []
    if pieces:
        yield pieces


FITS: Mapping[str, Fit] = MappingProxyType({"best_fit": _best_fit, "first_fit": _first_fit, "concat": _concat})
"""The ways to make bins, by name."""
