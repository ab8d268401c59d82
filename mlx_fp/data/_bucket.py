"""Bucket rows by length, so that the rows of one batch need little padding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from numbers import Real

from more_itertools import chunked

from ..core._context import with_context
from ._bucket_list import BucketList
from ._call_text import call_text
from ._cursor import CONTEXT, EpochRead, non_negative_int, note_location
from ._dataset import Operation
from ._rows import bind_context, varies
from ._types import Item

__all__ = ["bucket"]


def bucket(
    by: Callable[..., float], *, boundaries: Sequence[float], batch_size: int, drop_last: bool = False
) -> Operation:
    """Group rows of similar length into lists of `batch_size` rows; `pad` makes batches of these lists.

    A list is handed out as soon as its bucket is full. At the end of an epoch, the rows that are left in all buckets
    are grouped into lists of `batch_size` rows, the shortest rows first. At most one list has fewer rows.

    `pad` pads a list to the boundary of the bucket of its longest row, unless it has lengths of its own, `to=…`. So a
    compiled step sees at most one shape for each boundary, and one more for the list with fewer rows, if no row is
    longer than the last boundary. This holds for arrays whose length is that which `by` returns.

    Args:
        by: Function that returns the length of a row, with context as for `map`. For example, `len`.
        boundaries: Lengths in rising order. A bucket holds the lengths up to its boundary, boundary included. One more
            bucket holds longer rows, which `pad` pads to the longest of each list.
        batch_size: Number of rows of a list, at least 1.
        drop_last: Whether to leave out the rows that are left in the buckets at the end; False by default.

    Raises:
        TypeError: `boundaries` are not numbers, or `by` requires another parameter.
        ValueError: `boundaries` do not rise, or `batch_size` is not an integer of at least 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> words = data.source(["a", "three", "be", "to", "seven", "eight"])
    >>> list(pipe(words, data.bucket(len, boundaries=(2,), batch_size=2)))
    [['a', 'be'], ['three', 'seven'], ['to', 'eight']]
    """
    ends, size = _check_boundaries(boundaries), non_negative_int(batch_size, "the batch_size of bucket", minimum=1)
    label = call_text("bucket", by, boundaries=ends, batch_size=size, drop_last=drop_last or None)
    call = with_context(by, offers=CONTEXT, what="bucket function")

    def lists(rows: Iterator[Item], epoch_read: EpochRead) -> Iterator[list[Item]]:
        return _bucket_rows(bind_context(call, epoch_read), rows, ends, size, drop_last, epoch_read, label)

    return Operation(label, lists, varies=varies(call))


def _check_boundaries(boundaries: Sequence[float]) -> tuple[float, ...]:
    ends = tuple(boundaries) if hasattr(boundaries, "__iter__") else None
    if ends is None or not all(isinstance(end, Real) for end in ends):
        raise TypeError(f"the boundaries of bucket are lengths in rising order, as in (8, 16); got {boundaries!r}")
    if not ends or not all(a < b for a, b in pairwise(ends)):
        raise ValueError(f"the boundaries of bucket must rise; got {ends}")
    return ends


def _bucket_rows(
    by: Callable[[Item], float],
    rows: Iterator[Item],
    ends: tuple[float, ...],
    size: int,
    drop_last: bool,
    epoch_read: EpochRead,
    label: str,
) -> Iterator[list[Item]]:
    buckets: list[list[tuple[float, Item]]] = [[] for _ in (*ends, None)]
    for index, row in enumerate(rows, epoch_read.start):
        try:
            length = by(row)
            number = bisect_left(ends, length)
        except Exception as error:
            note_location(error, label, epoch_read, index)
            raise
        buckets[number].append((length, row))
        if len(buckets[number]) == size:
            yield _bucket_list(buckets[number], ends)
            buckets[number] = []
    if not drop_last:
        for group in chunked(chain.from_iterable(buckets), size):
            yield _bucket_list(group, ends)


def _bucket_list(group: Sequence[tuple[float, Item]], ends: tuple[float, ...]) -> BucketList:
    """Return the rows of pairs of a length and a row as a list."""
    longest = max(length for length, _ in group)
    return BucketList((row for _, row in group), longest, dict(enumerate(ends)).get(bisect_left(ends, longest)))
