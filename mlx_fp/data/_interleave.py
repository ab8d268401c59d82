"""Take items from several datasets, one at a time: in rotation, or drawn by weight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import repeat
from math import isfinite
from typing import Protocol

from ._combine import as_datasets, combine_sizes, datasets_text
from ._cursor import EpochRead, close, skip_to
from ._dataset import Dataset, Source
from ._random import check_seed, epoch_generator
from ._types import Item

__all__ = ["Turns", "interleave", "mix"]


class Turns(Protocol):
    """The choice of the dataset that gives the next item, among the datasets that have items left."""

    def next(self) -> int | None:
        """Return the number of the next dataset, None where all datasets have ended."""

    def drop(self, number: int) -> None:
        """Leave out the dataset that `next` returned last, because it has ended."""


def interleave(*datasets: object) -> Dataset:
    """Return a dataset that takes one item of each dataset in rotation, until all datasets have ended.

    Args:
        datasets: Datasets, or data that `source` takes. For example, lists of rows.

    Raises:
        ValueError: There is no dataset.

    >>> list(interleave("abc", "xy"))
    ['a', 'x', 'b', 'y', 'c']
    """
    parts = as_datasets("interleave", datasets)
    label = f"interleave({datasets_text(parts)})"
    return Dataset(_merge(label, parts, lambda epoch_read: _Rotation(deque(range(len(parts))))))


def mix(*datasets: object, weights: Sequence[float], seed: int) -> Dataset:
    """Return a dataset that draws its items from the datasets in proportion to weights, until all have ended.

    The items of one dataset keep their order. The choice of the datasets is a pure function of `(seed, epoch)`. The
    time of a draw grows with the logarithm of the number of datasets.

    Args:
        datasets: Datasets, or data that `source` takes.
        weights: A positive number for each dataset. For example, `(3, 1)`.
        seed: Integer from 0 to 2**32 - 1.

    Raises:
        TypeError: `weights` are not numbers.
        ValueError: There is not one positive, finite weight for each dataset, or there is no dataset, or `seed` is not
            a seed.

    >>> "".join(mix("abcdef", "xyz", weights=(2, 1), seed=7))
    'abcxdeyzf'
    """
    parts = as_datasets("mix", datasets)
    seed = check_seed(seed, "mix")
    numbers = _check_weights(weights, len(parts))
    label = f"mix({datasets_text(parts)}, weights={numbers}, seed={seed})"
    source = _merge(
        label, parts, lambda epoch_read: _Drawing(_sum_tree(numbers), epoch_generator(seed, epoch_read.epoch).random)
    )
    return Dataset(replace(source, varies=True))


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Turns in rotation: the first dataset of the queue is the next one, and goes to the end of the queue."""

    queue: deque[int]

    def next(self) -> int | None:
        self.queue.rotate(-1)
        return self.queue[-1] if self.queue else None

    def drop(self, number: int) -> None:
        self.queue.pop()


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Turns drawn by weight from a binary tree of sums: node `i` is the sum of the nodes `2 * i` and `2 * i + 1`."""

    sums: list[float]
    draw: Callable[[], float]

    def next(self) -> int | None:
        sums, node = self.sums, 1
        if not sums[1]:
            return None
        rest, leaves = self.draw() * sums[1], len(sums) // 2
        while node < leaves:
            node *= 2
            if rest >= sums[node] and sums[node + 1]:
                rest -= sums[node]
                node += 1
        return node - leaves

    def drop(self, number: int) -> None:
        sums, node = self.sums, number + len(self.sums) // 2
        sums[node] = 0.0
        while node := node // 2:
            sums[node] = sums[2 * node] + sums[2 * node + 1]


def _sum_tree(weights: Sequence[float]) -> list[float]:
    leaves = 1 << (len(weights) - 1).bit_length()
    sums = [0.0] * leaves + [*weights, *repeat(0.0, leaves - len(weights))]
    for node in reversed(range(1, leaves)):
        sums[node] = sums[2 * node] + sums[2 * node + 1]
    return sums


def _check_weights(weights: Sequence[float], count: int) -> tuple[float, ...]:
    expected = f"mix takes a positive weight for each of {count} datasets"
    try:
        numbers = tuple(weights)
        valid = len(numbers) == count and all(weight > 0 for weight in numbers) and isfinite(sum(map(float, numbers)))
    except (TypeError, ValueError):
        raise TypeError(f"{expected}; got {weights!r}") from None
    if not valid:
        raise ValueError(f"{expected}; got {numbers}")
    return numbers


def _merge(label: str, parts: Sequence[Dataset], turns: Callable[[EpochRead], Turns]) -> Source:
    sizes = [part.size for part in parts]

    def rows(epoch_read: EpochRead) -> Iterator[Item]:
        if None not in sizes:
            return _read_by_turns(parts, epoch_read, turns(epoch_read), sizes)
        from_start = replace(epoch_read, start=0)
        return skip_to(_read_by_turns(parts, from_start, turns(epoch_read), sizes), epoch_read, label)

    return Source(label, combine_sizes(sizes), rows=rows, inputs=tuple(parts))


def _read_by_turns(
    parts: Sequence[Dataset], epoch_read: EpochRead, turns: Turns, sizes: Sequence[int | None]
) -> Generator[Item, None, None]:
    """Yield the items of the datasets by turns; items before the start are only counted, which needs the sizes."""
    starts = [0] * len(parts)
    for _ in range(epoch_read.start):
        while (i := turns.next()) is not None and starts[i] == sizes[i]:
            turns.drop(i)
        if i is None:
            return
        starts[i] += 1
    with ExitStack() as resources:
        readers = [part.read(replace(epoch_read, start=start)) for part, start in zip(parts, starts, strict=True)]
        for reader in readers:
            resources.callback(close, reader)
        while (i := turns.next()) is not None:
            for item in readers[i]:
                yield item
                break
            else:
                turns.drop(i)
