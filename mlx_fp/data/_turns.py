"""Datasets of which one item comes at a time: in rotation, or drawn by weight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import repeat
from math import isfinite
from typing import Any, Protocol

from ._combine import labels, parts_of, total
from ._cursor import Pass, close, replayed
from ._dataset import Dataset, Source
from ._random import draws, seeded

__all__ = ["interleave", "mix"]


class Turns(Protocol):
    """Says whose turn it is, of the datasets by number that have items left."""

    def next(self) -> int | None:
        """Return the number of the dataset whose turn it is, None where all have ended."""

    def drop(self, number: int) -> None:
        """Leave out a dataset, the one whose turn it was, because it has ended."""


def interleave(*datasets: Any) -> Dataset:
    """Return the dataset of one item of each dataset after the other, until all have ended.

    >>> list(interleave("abc", "xy"))
    ['a', 'x', 'b', 'y', 'c']
    """
    parts = parts_of("interleave", datasets)
    return _merged(f"interleave({labels(parts)})", parts, lambda now: _Rotation(deque(range(len(parts)))))


def mix(*datasets: Any, weights: Sequence[float], seed: int) -> Dataset:
    """Return the dataset of items drawn from the datasets in proportion to `weights`, until all have ended.

    Each dataset's items come in its own order; whose turn it is, is a pure function of `(seed, epoch)`. A draw costs
    as much as the logarithm of the number of datasets. Raise ValueError unless there is a positive weight for each
    dataset, and TypeError for weights that are no numbers.

    >>> "".join(mix("abcdef", "xyz", weights=(2, 1), seed=7))
    'abcxdeyzf'
    """
    parts = parts_of("mix", datasets)
    seeded(seed, "mix")
    shares = _weights(weights, len(parts))
    label = f"mix({labels(parts)}, weights={shares}, seed={seed})"
    return _merged(label, parts, lambda now: _Drawing(_tree(shares), draws(seed, now.epoch).random))


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Turns in rotation: the first of the queue has the next, and goes to its end."""

    queue: deque[int]

    def next(self) -> int | None:
        self.queue.rotate(-1)
        return self.queue[-1] if self.queue else None

    def drop(self, number: int) -> None:
        self.queue.pop()


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Turns drawn by weight from a binary tree of sums: node `i` has the sum of the nodes `2 * i` and `2 * i + 1`."""

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


def _tree(weights: Sequence[float]) -> list[float]:
    leaves = 1 << (len(weights) - 1).bit_length()
    sums = [0.0] * leaves + [*weights, *repeat(0.0, leaves - len(weights))]
    for node in reversed(range(1, leaves)):
        sums[node] = sums[2 * node] + sums[2 * node + 1]
    return sums


def _weights(weights: Sequence[float], count: int) -> tuple[float, ...]:
    wanted = f"mix takes a positive weight for each of {count} datasets"
    try:
        given = tuple(weights)
        fit = len(given) == count and all(weight > 0 for weight in given) and isfinite(sum(map(float, given)))
    except (TypeError, ValueError):
        raise TypeError(f"{wanted}; got {weights!r}") from None
    if not fit:
        raise ValueError(f"{wanted}; got {given}")
    return given


def _merged(label: str, parts: Sequence[Dataset], turns: Callable[[Pass], Turns]) -> Dataset:
    sizes = [part.size for part in parts]
    known = None not in sizes

    def rows(now: Pass) -> Iterator[Any]:
        if known:
            return _in_turn(parts, now, turns(now), sizes)
        return replayed(_in_turn(parts, replace(now, start=0), turns(now), sizes), now, label)

    return Dataset(Source(label, total(sizes), rows=rows))


def _in_turn(
    parts: Sequence[Dataset], now: Pass, turns: Turns, sizes: Sequence[int | None]
) -> Generator[Any, None, None]:
    """Hand out items as their turn comes; up to the pass's start only count them, which takes their sizes."""
    given = [0] * len(parts)
    for _ in range(now.start):
        while (i := turns.next()) is not None and given[i] == sizes[i]:
            turns.drop(i)
        if i is None:
            return
        given[i] += 1
    with ExitStack() as opened:
        readers = [part.read(replace(now, start=start)) for part, start in zip(parts, given, strict=True)]
        for reader in readers:
            opened.callback(close, reader)
        while (i := turns.next()) is not None:
            for item in readers[i]:
                yield item
                break
            else:
                turns.drop(i)
