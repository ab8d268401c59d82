"""Operations on rows: lazy, in order, and never a row read that is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, takewhile
from typing import Any

from more_itertools import chunked

from ..call import name_of, named
from .collate import collate
from .dataset import Operation
from .place import Pass, numbered

__all__ = ["batched", "filter", "map"]


def map(f: Callable[..., Any]) -> Operation:
    """Replace each item by `f(item)`; `f` also gets `index=` and `epoch=` if it names them.

    Raise TypeError when `f` requires anything else.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("ab"), data.map(lambda letter, index: letter * index)))
    ['', 'b']
    """
    label, bind = f"map({name_of(f)})", _binding(f, "map")
    return Operation(label, lambda rows, now: numbered(bind(now), rows, now, label), size=lambda size: size, exact=True)


def filter(f: Callable[..., Any]) -> Operation:
    """Keep the items for which `f(item)` is true; `f` also gets `index=` and `epoch=` if it names them.

    `index` counts what comes in; the operation after it counts what comes out. Raise TypeError as `map` does.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(range(6)), data.filter(lambda n: n % 2)))
    [1, 3, 5]
    """
    label, bind = f"filter({name_of(f)})", _binding(f, "filter")
    return Operation(label, lambda rows, now: numbered(bind(now), rows, now, label, keep=True))


def batched(rows: Iterator[Any], n: int, *, drop_last: bool, now: Pass, label: str) -> Iterator[Any]:
    """Yield every `n` rows collated, the last ones too when they are fewer, unless `drop_last`.

    >>> list(batched(iter("abc"), 2, drop_last=False, now=Pass(0, "train"), label="batch(2)"))
    [['a', 'b'], ['c']]
    """
    groups = chunked(rows, n)  # toolz.partition_all reads a group ahead
    whole = takewhile(lambda group: len(group) == n, groups) if drop_last else groups
    return numbered(collate, whole, now, label)


def _binding(f: Callable[..., Any], what: str) -> Callable[[Pass], Callable[[Any], Any]]:
    """Return what makes of a pass a function of rows: `f`, bound to what it names of their places."""
    call = named(f, offers=("epoch", "index"), what=f"{what} function")

    def bind(now: Pass) -> Callable[[Any], Any]:
        index = count(now.start)
        return lambda row: call(row, epoch=now.epoch, index=next(index))

    return bind
