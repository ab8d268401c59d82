"""Rows of different lengths, sorted into lists of rows of like length."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from numbers import Real
from typing import Any

from more_itertools import chunked

from ..core._signature import name_of, with_context
from ._cursor import CONTEXT, Pass, blame, natural
from ._dataset import Operation
from ._rows import bind_context

__all__ = ["bucket"]


def bucket(
    by: Callable[..., Any], *, boundaries: Sequence[float], batch_size: int, drop_last: bool = False
) -> Operation:
    """Join rows of like length into lists of `batch_size` rows; `pad` makes batches of them.

    `by(row)` is a row's length; it gets context as for `map`. `boundaries` rise; a bucket holds lengths up to and
    with its boundary, the last one those beyond. A list is handed out when it is full. At the end what is left in the
    buckets is joined, from the shortest rows on, into lists of `batch_size` rows too and at most one of fewer, so that
    padded batches have few shapes; with `drop_last` it is left out. Raise ValueError for boundaries that do not rise,
    and TypeError for what are no numbers.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> words = data.source(["a", "three", "be", "to", "seven", "eight"])
    >>> list(pipe(words, data.bucket(len, boundaries=(2,), batch_size=2)))
    [['a', 'be'], ['three', 'seven'], ['to', 'eight']]
    """
    ends, size = _boundaries(boundaries), natural(batch_size, "the batch_size of bucket", least=1)
    label = f"bucket({name_of(by)}, boundaries={ends}, batch_size={size})"
    call = with_context(by, offers=CONTEXT, what="bucket function")

    def lists(rows: Iterator[Any], now: Pass) -> Iterator[list[Any]]:
        return _buckets(bind_context(call, now), rows, ends, size, drop_last, now, label)

    return Operation(label, lists)


def _boundaries(given: Sequence[float]) -> tuple[float, ...]:
    ends = tuple(given) if hasattr(given, "__iter__") else None
    if ends is None or not all(isinstance(end, Real) for end in ends):
        raise TypeError(f"the boundaries of bucket are lengths that rise, as in (8, 16); got {given!r}")
    if not ends or not all(a < b for a, b in pairwise(ends)):
        raise ValueError(f"the boundaries of bucket must rise; got {ends}")
    return ends


def _buckets(
    by: Callable[[Any], Any],
    rows: Iterator[Any],
    ends: tuple[float, ...],
    size: int,
    drop_last: bool,
    now: Pass,
    label: str,
) -> Iterator[list[Any]]:
    held: list[list[Any]] = [[] for _ in (*ends, None)]
    for index, row in enumerate(rows, now.start):
        try:
            at = bisect_left(ends, by(row))
        except Exception as error:
            blame(error, label, now, index)
            raise
        held[at].append(row)
        if len(held[at]) == size:
            yield held[at]
            held[at] = []
    if not drop_last:
        yield from chunked(chain.from_iterable(held), size)
