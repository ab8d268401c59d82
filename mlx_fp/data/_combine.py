"""Combine several datasets into one, or repeat a dataset."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count

from ._call_text import call_text
from ._cursor import EpochRead, close, non_negative_int
from ._dataset import Dataset, Operation, Source
from ._source import as_dataset
from ._types import Item, ItemFunction
from ._view import join_views, side_by_side

__all__ = ["as_datasets", "combine_sizes", "concat", "datasets_text", "repeat", "zip"]


def concat(*datasets: object) -> Dataset:
    """Return a dataset of the items of each dataset in turn.

    Where all datasets have indices, the result has indices, too, and may be shuffled.

    Args:
        datasets: Datasets, or data that `source` takes. For example, lists of rows.

    Raises:
        ValueError: There is no dataset.

    >>> list(concat(["a", "b"], ["c"]))
    ['a', 'b', 'c']
    """
    parts = as_datasets("concat", datasets)
    return _concatenated(
        f"concat({datasets_text(parts)})",
        parts,
        lambda epoch_read: builtins.zip(parts, [epoch_read] * len(parts), strict=True),
    )


def repeat(n: int | None = None) -> Operation:
    """Read `n` epochs of the dataset as one epoch.

    Epoch `e` of the result consists of the epochs `e * n` to `e * n + n - 1` of the dataset. So a shuffle before
    `repeat` gives another order each time. Without `n`, epoch `e` consists of the epochs from `e` on, without end.

    Args:
        n: Number of epochs, at least 1; None, the default, repeats without end.

    Raises:
        ValueError: `n` is not an integer of at least 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abc"), data.shuffle(seed=7), data.repeat(2)))
    ['a', 'b', 'c', 'b', 'a', 'c']
    """
    times = None if n is None else non_negative_int(n, "the n of repeat(n)", minimum=1)
    label = "repeat()" if times is None else call_text("repeat", times)

    def epochs(epoch_read: EpochRead) -> Iterable[int]:
        first = epoch_read.epoch
        return count(first) if times is None else range(first * times, (first + 1) * times)

    def repeated(dataset: Dataset) -> Source:
        def reads(epoch_read: EpochRead) -> Iterator[tuple[Dataset, EpochRead]]:
            return ((dataset, replace(epoch_read, epoch=epoch)) for epoch in epochs(epoch_read))

        if times is None:
            return Source(label, rows=lambda epoch_read: _read_in_turn(reads(epoch_read), epoch_read, endless=True))
        return _concatenated(label, [dataset] * times, reads).source

    return Operation(label, as_source=repeated)


def zip(*datasets: object, **by_name: object) -> Dataset:
    """Return a dataset whose items combine one item of each dataset.

    Args:
        datasets: Datasets, or data that `source` takes; items are then tuples.
        by_name: The same by name; items are then dicts.

    Raises:
        TypeError: Datasets are given both by position and by name, or there is none.
        ValueError: Lengths are known and differ. Where a length is unknown, the shortest dataset ends the epoch.

    >>> list(zip(number=[1, 2], letter="ab"))
    [{'number': 1, 'letter': 'a'}, {'number': 2, 'letter': 'b'}]
    """
    if bool(datasets) == bool(by_name):
        raise TypeError("zip takes datasets, all by position or all by name")
    parts = as_datasets("zip", [*datasets, *by_name.values()])
    sizes = [part.size for part in parts]
    known_sizes = [size for size in sizes if size is not None]
    if len(set(known_sizes)) > 1:
        lengths = ", ".join(map(str, known_sizes))
        raise ValueError(f"the datasets of zip have different lengths, {lengths}: take(n) of them")
    names = tuple(by_name)
    assemble: ItemFunction = (lambda items: dict(builtins.zip(names, items, strict=True))) if names else tuple
    label, size = f"zip({datasets_text(parts, names)})", combine_sizes(sizes, min)
    if all(part.indexed for part in parts):
        return Dataset(
            Source(
                label,
                size,
                view=lambda epoch_read: side_by_side([part.view(epoch_read) for part in parts], assemble),
                inputs=tuple(parts),
            )
        )
    return Dataset(
        Source(label, size, rows=lambda epoch_read: _zip_rows(parts, epoch_read, assemble), inputs=tuple(parts))
    )


def as_datasets(verb: str, datasets: Sequence[object]) -> list[Dataset]:
    """Return the arguments of a verb as datasets; ValueError where there are none.

    >>> as_datasets("concat", ["ab", [1, 2]])
    [source(str of 2), source(list of 2)]
    """
    if not datasets:
        raise ValueError(f"{verb} needs at least one dataset")
    return [as_dataset(dataset) for dataset in datasets]


def datasets_text(parts: Sequence[Dataset], names: Sequence[str] = ()) -> str:
    """Return the text of several datasets, with their names where they have names.

    >>> datasets_text(as_datasets("zip", ["ab", "xy"]), ["a", "b"])
    'a=source(str of 2), b=source(str of 2)'
    """
    texts = [f"{name}={part!r}" for name, part in builtins.zip(names, parts, strict=False)]
    return ", ".join(texts or map(repr, parts))


def combine_sizes(sizes: Sequence[int | None], combine: Callable[[Sequence[int]], int] = sum) -> int | None:
    """Return the sum of sizes, or another reduction of them; None where one size is unknown.

    >>> combine_sizes([2, 3]), combine_sizes([2, 3], min), combine_sizes([2, None])
    (5, 2, None)
    """
    known_sizes = [size for size in sizes if size is not None]
    return combine(known_sizes) if len(known_sizes) == len(sizes) else None


Reads = Callable[[EpochRead], Iterable[tuple[Dataset, EpochRead]]]
"""A function of one reading of an epoch that returns the datasets to read in turn, and how to read each."""


def _concatenated(label: str, parts: Sequence[Dataset], reads: Reads) -> Dataset:
    size = combine_sizes([part.size for part in parts])
    if all(part.indexed for part in parts):
        return Dataset(
            Source(
                label,
                size,
                view=lambda epoch_read: join_views([part.view(part_read) for part, part_read in reads(epoch_read)]),
                inputs=tuple(parts),
            )
        )
    return Dataset(
        Source(label, size, rows=lambda epoch_read: _read_in_turn(reads(epoch_read), epoch_read), inputs=tuple(parts))
    )


def _read_in_turn(
    reads: Iterable[tuple[Dataset, EpochRead]], epoch_read: EpochRead, endless: bool = False
) -> Generator[Item, None, None]:
    """Read datasets in turn from the start on; a dataset of known size before the start is skipped without reading."""
    to_skip = epoch_read.start
    for dataset, part_read in reads:
        size = dataset.size
        if size and size <= to_skip:
            to_skip -= size
            continue
        start = seen = to_skip if size else 0
        with closing(dataset.read(replace(part_read, start=start))) as rows:
            for row in rows:
                seen += 1
                if seen > to_skip:
                    yield row
        to_skip = max(to_skip - seen, 0)
        if endless and seen == start:
            return  # the dataset is empty: there is nothing to repeat


def _zip_rows(parts: Sequence[Dataset], epoch_read: EpochRead, assemble: ItemFunction) -> Generator[Item, None, None]:
    with ExitStack() as resources:
        readers = [part.read(epoch_read) for part in parts]
        for reader in readers:
            resources.callback(close, reader)
        yield from map(assemble, builtins.zip(*readers, strict=False))
