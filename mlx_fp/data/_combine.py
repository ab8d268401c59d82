"""Several datasets as one, and one dataset several times."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from typing import Any

from ._cursor import Pass, close, natural
from ._dataset import Dataset, Operation, Source
from ._lazy import evaluated
from ._owned import owned
from ._source import as_dataset
from ._view import join, side_by_side

__all__ = ["cache", "concat", "labels", "parts_of", "repeat", "total", "zip"]


def concat(*datasets: Any) -> Dataset:
    """Return the dataset of the items of each dataset in turn.

    Of indices it stays indices, and may be shuffled.

    >>> list(concat(["a", "b"], ["c"]))
    ['a', 'b', 'c']
    """
    parts = parts_of("concat", datasets)
    return _joined(f"concat({labels(parts)})", parts, lambda now: builtins.zip(parts, [now] * len(parts), strict=True))


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
    parts = parts_of("zip", [*datasets, *by_name.values()])
    sizes = [part.size for part in parts]
    known = [size for size in sizes if size is not None]
    if len(set(known)) > 1:
        raise ValueError(f"the datasets of zip have different lengths, {', '.join(map(str, known))}: take(n) of them")
    names = tuple(by_name)
    together = (lambda items: dict(builtins.zip(names, items, strict=True))) if names else tuple
    label = f"zip({labels(parts, names)})"
    if all(part.indexed for part in parts):
        return Dataset(
            Source(label, total(sizes, min), view=lambda now: side_by_side([p.view(now) for p in parts], together))
        )
    return Dataset(Source(label, total(sizes, min), rows=lambda now: _zipped(parts, now, together)))


def cache() -> Operation:
    """Keep the items of epoch 0 of what comes before in memory, and hand those out in every epoch.

    They are read as they are needed, MLX arrays evaluated, and kept once an epoch was read to its end. Each is handed
    out as a copy, which may be changed in place; objects that are no containers and no arrays are shared.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> kept = pipe(data.source("ab"), data.tap(print), data.cache())
    >>> list(kept), list(kept)
    a
    b
    (['a', 'b'], ['a', 'b'])
    """
    return Operation("cache()", whole=lambda dataset: Source("cache()", dataset.size, rows=_cached(dataset)))


def parts_of(what: str, datasets: Sequence[Any]) -> list[Dataset]:
    """Return what a verb joins as datasets; ValueError where there are none.

    >>> parts_of("concat", ["ab", [1, 2]])
    [source(str of 2), source(list of 2)]
    """
    if not datasets:
        raise ValueError(f"{what} needs at least one dataset")
    return [as_dataset(dataset) for dataset in datasets]


def labels(parts: Sequence[Dataset], names: Sequence[str] = ()) -> str:
    """Return the datasets in words, by name where they have names.

    >>> labels(parts_of("zip", ["ab", "xy"]), ["a", "b"])
    'a=source(str of 2), b=source(str of 2)'
    """
    shown = [f"{name}={part!r}" for name, part in builtins.zip(names, parts, strict=False)]
    return ", ".join(shown or map(repr, parts))


def total(sizes: Sequence[int | None], of: Callable[[Any], int] = sum) -> int | None:
    """Return the sum of sizes, or another fold of them; None where one is not known.

    >>> total([2, 3]), total([2, 3], min), total([2, None])
    (5, 2, None)
    """
    return None if None in sizes else of(sizes)


def _joined(label: str, parts: Sequence[Dataset], turns: Callable[[Pass], Any]) -> Dataset:
    size = total([part.size for part in parts])
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
        with closing(dataset.read(replace(at, start=start))) as rows:
            for row in rows:
                seen += 1
                if seen > left:
                    yield row
        left = max(left - seen, 0)
        if endless and seen == start:
            return  # there is nothing to repeat


def _zipped(parts: Sequence[Dataset], now: Pass, together: Callable[[Any], Any]) -> Generator[Any, None, None]:
    with ExitStack() as opened:
        readers = [part.read(now) for part in parts]
        for reader in readers:
            opened.callback(close, reader)
        yield from map(together, builtins.zip(*readers, strict=False))


def _cached(dataset: Dataset) -> Callable[[Pass], Iterator[Any]]:
    kept: list[list[Any]] = []

    def rows(now: Pass) -> Iterator[Any]:
        if kept:
            yield from map(owned, kept[0][now.start :])
            return
        read: list[Any] = []
        with closing(dataset.read(replace(now, epoch=0, start=0, owned=False))) as source:
            for item in source:
                read.append(evaluated(item))
                if len(read) > now.start:
                    yield owned(item)
        kept[:] = [read]

    return rows
