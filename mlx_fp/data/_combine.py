"""Several datasets as one, and one dataset several times."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from typing import Any

from ._cursor import Cursor, Pass, close, natural, replayed
from ._dataset import Dataset, Operation, Source
from ._lazy import evaluated
from ._random import draws, seeded
from ._source import as_dataset
from ._view import join, side_by_side

__all__ = ["cache", "concat", "interleave", "mix", "repeat", "zip"]

Turns = Callable[[list[int]], int]
"""Says whose turn it is, of the numbers of the datasets that have items left."""


def concat(*datasets: Any) -> Dataset:
    """Return the dataset of the items of each dataset in turn.

    Of indices it stays indices, and may be shuffled.

    >>> list(concat(["a", "b"], ["c"]))
    ['a', 'b', 'c']
    """
    parts = _parts("concat", datasets)
    return _joined(f"concat({_labels(parts)})", parts, lambda now: builtins.zip(parts, [now] * len(parts), strict=True))


def repeat(n: int | None = None) -> Operation:
    """Read `n` epochs as one; without end if no `n` is given.

    Epoch `e` of it is the epochs `e * n` to `e * n + n - 1` of what comes before, so that a shuffle before it differs
    each time; endlessly, it is those from `e` on.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abc"), data.shuffle(seed=7), data.repeat(2)))
    ['a', 'b', 'c', 'b', 'a', 'c']
    """
    times = None if n is None else natural(n, "the n of repeat(n)", least=1)
    label = "repeat()" if times is None else f"repeat({times})"

    def rounds(now: Pass) -> Iterator[int]:
        return count(now.epoch) if times is None else iter(range(now.epoch * times, (now.epoch + 1) * times))

    def whole(dataset: Dataset) -> Source:
        def turns(now: Pass) -> Iterator[tuple[Dataset, Pass]]:
            return ((dataset, replace(now, epoch=epoch)) for epoch in rounds(now))

        if times is None:
            return Source(label, rows=lambda now: _one_after_another(turns(now), now, endless=True))
        return _joined(label, [dataset] * times, turns).source

    return Operation(label, whole=whole)


def zip(*datasets: Any, **by_name: Any) -> Dataset:
    """Return the dataset of one item of each dataset together, as a tuple, or as a dict of those given by name.

    Raise ValueError where lengths are known and differ; else it ends with the shortest.

    >>> list(zip(number=[1, 2], letter="ab"))
    [{'number': 1, 'letter': 'a'}, {'number': 2, 'letter': 'b'}]
    """
    if bool(datasets) == bool(by_name):
        raise TypeError("zip takes datasets, all by position or all by name")
    parts = _parts("zip", [*datasets, *by_name.values()])
    sizes = [part.size for part in parts]
    known = [size for size in sizes if size is not None]
    if len(set(known)) > 1:
        raise ValueError(f"the datasets of zip have different lengths, {', '.join(map(str, known))}: take(n) of them")
    names = tuple(by_name)
    together = (lambda items: dict(builtins.zip(names, items, strict=True))) if names else tuple
    label = f"zip({_labels(parts, names)})"
    if all(part.indexed for part in parts):
        return Dataset(
            Source(label, _sum(sizes, min), view=lambda now: side_by_side([p.view(now) for p in parts], together))
        )
    return Dataset(Source(label, _sum(sizes, min), rows=lambda now: _zipped(parts, now, together)))


def interleave(*datasets: Any) -> Dataset:
    """Return the dataset of one item of each dataset after the other, until all have ended.

    >>> list(interleave("abc", "xy"))
    ['a', 'x', 'b', 'y', 'c']
    """
    parts = _parts("interleave", datasets)

    def turns(now: Pass) -> Turns:
        at = -1

        def turn(left: list[int]) -> int:
            nonlocal at
            at = next((i for i in left if i > at), left[0])
            return at

        return turn

    return _merged(f"interleave({_labels(parts)})", parts, turns)


def mix(*datasets: Any, weights: Sequence[float], seed: int) -> Dataset:
    """Return the dataset of items drawn from the datasets in proportion to `weights`, until all have ended.

    Each dataset's items come in its own order; whose turn it is, is a pure function of `(seed, epoch)`. Raise
    ValueError unless there is a positive weight for each dataset.

    >>> "".join(mix("abcdef", "xyz", weights=(2, 1), seed=7))
    'abcxdeyzf'
    """
    parts = _parts("mix", datasets)
    seeded(seed, "mix")
    if len(weights) != len(parts) or not all(weight > 0 for weight in weights):
        raise ValueError(f"mix takes a positive weight for each of {len(parts)} datasets; got {tuple(weights)}")

    def turns(now: Pass) -> Turns:
        draw = draws(seed, now.epoch).random

        def turn(left: list[int]) -> int:
            rest = draw() * sum(weights[i] for i in left)
            for i in left:
                rest -= weights[i]
                if rest < 0:
                    return i
            return left[-1]

        return turn

    return _merged(f"mix({_labels(parts)}, weights={tuple(weights)}, seed={seed})", parts, turns)


def cache() -> Operation:
    """Keep the items of epoch 0 of what comes before in memory, and hand those out in every epoch.

    They are read as they are needed, MLX arrays evaluated, and kept once an epoch was read to its end.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> kept = pipe(data.source("ab"), data.tap(print), data.cache())
    >>> list(kept), list(kept)
    a
    b
    (['a', 'b'], ['a', 'b'])
    """
    return Operation("cache()", whole=lambda dataset: Source("cache()", dataset.size, rows=_cached(dataset)))


def _parts(what: str, datasets: Sequence[Any]) -> list[Dataset]:
    if not datasets:
        raise ValueError(f"{what} needs at least one dataset")
    return [as_dataset(dataset) for dataset in datasets]


def _labels(parts: Sequence[Dataset], names: Sequence[str] = ()) -> str:
    shown = [f"{name}={part!r}" for name, part in builtins.zip(names, parts, strict=False)]
    return ", ".join(shown or map(repr, parts))


def _sum(sizes: Sequence[int | None], of: Callable[[Any], int] = sum) -> int | None:
    return None if None in sizes else of(sizes)


def _joined(label: str, parts: Sequence[Dataset], turns: Callable[[Pass], Any]) -> Dataset:
    size = _sum([part.size for part in parts])
    if all(part.indexed for part in parts):
        return Dataset(Source(label, size, view=lambda now: join([part.view(at) for part, at in turns(now)])))
    return Dataset(Source(label, size, rows=lambda now: _one_after_another(turns(now), now)))


def _one_after_another(turns: Any, now: Pass, endless: bool = False) -> Generator[Any, None, None]:
    """Read datasets in turn from the pass's start on; one that lies before it is not read where its size is known."""
    left = now.start
    for dataset, at in turns:
        size = dataset.size
        if size and size <= left:
            left -= size
            continue
        start = seen = left if size else 0
        with closing(dataset.open(Cursor(at.epoch, start), kind=at.kind)) as rows:
            for row in rows:
                seen += 1
                if seen > left:
                    yield row
        left = max(left - seen, 0)
        if endless and seen == start:
            return  # there is nothing to repeat


def _zipped(parts: Sequence[Dataset], now: Pass, together: Callable[[Any], Any]) -> Generator[Any, None, None]:
    with ExitStack() as opened:
        readers = [part.open(Cursor(now.epoch, now.start), kind=now.kind) for part in parts]
        for reader in readers:
            opened.callback(close, reader)
        yield from map(together, builtins.zip(*readers, strict=False))


def _merged(label: str, parts: Sequence[Dataset], turns: Callable[[Pass], Turns]) -> Dataset:
    sizes = [part.size for part in parts]
    known = None not in sizes

    def rows(now: Pass) -> Iterator[Any]:
        if known:
            return _in_turn(parts, now, turns(now), sizes)
        return replayed(_in_turn(parts, replace(now, start=0), turns(now), sizes), now, label)

    return Dataset(Source(label, _sum(sizes), rows=rows))


def _in_turn(
    parts: Sequence[Dataset], now: Pass, turn: Turns, sizes: Sequence[int | None]
) -> Generator[Any, None, None]:
    """Hand out items as their turn comes; up to the pass's start only count them, which takes their sizes."""
    left, given = list(range(len(parts))), [0] * len(parts)
    for _ in range(now.start):
        while left and given[i := turn(left)] == sizes[i]:
            left.remove(i)
        if not left:
            return
        given[i] += 1
    with ExitStack() as opened:
        places = [Cursor(now.epoch, start) for start in given]
        readers = [part.open(at, kind=now.kind) for part, at in builtins.zip(parts, places, strict=True)]
        for reader in readers:
            opened.callback(close, reader)
        while left:
            i = turn(left)
            for item in readers[i]:
                yield item
                break
            else:
                left.remove(i)


def _cached(dataset: Dataset) -> Callable[[Pass], Iterator[Any]]:
    kept: list[list[Any]] = []

    def rows(now: Pass) -> Iterator[Any]:
        if kept:
            yield from kept[0][now.start :]
            return
        read: list[Any] = []
        with closing(dataset.open(Cursor(0), kind=now.kind)) as source:
            for item in source:
                read.append(evaluated(item))
                if len(read) > now.start:
                    yield item
        kept[:] = [read]

    return rows
