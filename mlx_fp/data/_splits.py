"""Split one dataset into disjoint parts, and combine train, validation and test data in one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeGuard, cast

from toolz import pipe

from ..core._pickling import Picklable
from ._call_text import call_text
from ._cursor import EpochRead
from ._dataset import Dataset, Operation, Source
from ._random import check_seed, epoch_generator, permutation
from ._rows import filter
from ._source import as_dataset
from ._types import Item
from ._view import View, gather

__all__ = ["Splits", "split", "splits"]

DatasetVerb = Callable[[Dataset], Dataset]
"""A function from dataset to dataset, for example `batch(8)`."""


@dataclass(frozen=True, slots=True)
class Splits(Picklable):
    """The data of a run: `splits` makes this record, and `fit` and `evaluate` take it.

    Args:
        train: Data to train on.
        validation: Data to validate on; None by default.
        test: Data to test on; None by default.
    """

    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None


def splits(
    *,
    train: object,
    validation: object = None,
    test: object = None,
    shared: DatasetVerb | Iterable[DatasetVerb] = (),
) -> Splits:
    """Combine the train, validation and test data of a run in one record.

    Args:
        train: Data to train on: a dataset, data that `source` takes, or a tuple of data and operations for them. For
            example, `(rows, data.shuffle(seed=7))`.
        validation: The same for validation; None by default.
        test: The same for `evaluate`; None by default.
        shared: An operation, or several, that come first in each of the three, before its own operations.

    Returns:
        A `Splits`.

    Raises:
        TypeError: `shared` holds an object that is not callable, or data are not data.

    >>> from mlx_fp import data
    >>> plan = splits(train=(data.source(range(8)), data.take(4)), test=range(2), shared=data.map(lambda n: n * n))
    >>> list(plan.train), plan.validation, list(plan.test)
    ([0, 1, 4, 9], None, [0, 1])
    """
    common = (shared,) if callable(shared) or not isinstance(shared, Iterable) else tuple(shared)
    if not all(map(callable, common)):
        raise TypeError(f"shared is an operation or several; got {shared!r}")
    return Splits(
        _with_operations(train, common),
        None if validation is None else _with_operations(validation, common),
        None if test is None else _with_operations(test, common),
    )


def split(fractions: Sequence[float], *, seed: int) -> Callable[[Dataset], tuple[Dataset, ...]]:
    """Split a dataset into disjoint parts; a row stays in its part in every epoch.

    A split always reads the order of epoch 0, so shuffle after it. Where the dataset has indices, they are drawn once
    by `seed`. In a stream, and after row operations, each row is drawn for a part by its index, so the sizes of
    the parts are approximate.

    Args:
        fractions: Share of the rows of each part, positive, with a sum of at most 1. For example, `(0.8, 0.2)`.
        seed: Integer from 0 to 2**32 - 1.

    Returns:
        A function from a dataset to a tuple of datasets.

    Raises:
        TypeError: `fractions` are not numbers.
        ValueError: `fractions` are not positive or add up to more than 1, `seed` is not a seed, or a part gets no row.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> train, held_out = pipe(data.source(range(10)), data.split((0.8, 0.2), seed=7))
    >>> sorted([*train, *held_out]) == list(range(10)), len(held_out)
    (True, 2)
    """
    return _Split(_check_fractions(fractions), check_seed(seed, "split"))


@dataclass(frozen=True, slots=True)
class _Split(Picklable):
    """The function that `split` returns; it prints as it was written."""

    fractions: tuple[float, ...]
    seed: int

    def __call__(self, dataset: Dataset) -> tuple[Dataset, ...]:
        if not isinstance(dataset, Dataset):
            kind = type(dataset).__name__
            raise TypeError(f"split takes a Dataset, not a {kind}: begin with source, arrays or stream")
        ends = tuple(accumulate(self.fractions))
        bounds = zip((0.0, *ends), ends, strict=False)
        part = _part_of_indices if dataset.indexed else _part_of_rows
        return tuple(part(dataset, start, end, self.seed) for start, end in bounds)

    def __repr__(self) -> str:
        return call_text("split", self.fractions, seed=self.seed)


def _check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    try:
        shares = tuple(fractions)
        ends = tuple(accumulate(shares))
        valid = bool(ends) and all(share > 0 for share in shares) and ends[-1] <= 1 + 1e-9
    except TypeError:
        expected = "split takes a fraction for each part, as in split((0.8, 0.2), seed=7)"
        raise TypeError(f"{expected}; got {fractions!r}") from None
    if not valid:
        raise ValueError(f"the fractions of split must be positive and add up to 1 at most; got {shares}")
    return shares


def _with_operations(part: object, shared: Sequence[DatasetVerb]) -> Dataset:
    """Return the data of a part as a dataset, with the shared operations and then its own."""
    operations: Sequence[object] = ()
    if _has_operations(part):
        part, *operations = part
    return cast(Dataset, pipe(as_dataset(part), *shared, *operations))


def _has_operations(part: object) -> TypeGuard[tuple[object, ...]]:
    """Whether a part is a tuple of data and operations, and not a tuple of batches."""
    if not isinstance(part, tuple) or not part:
        return False
    return isinstance(part[0], Dataset) or (len(part) > 1 and all(map(callable, part[1:])))


def _part_of_indices(dataset: Dataset, start: float, end: float, seed: int) -> Dataset:
    label = _part_label(start, end, seed)

    def bounds(size: int) -> tuple[int, int]:
        first, last = round(start * size), round(end * size)
        if first == last:
            raise ValueError(f"{label} of {size} items is empty")
        return first, last

    def view(epoch_read: EpochRead) -> View:
        all_items = dataset.view(replace(epoch_read, epoch=0, kind="train"))
        first, last = bounds(len(all_items))
        return replace(all_items, order=gather(all_items.order, permutation(seed, 0, len(all_items))[first:last]))

    first_and_last = None if dataset.size is None else bounds(dataset.size)
    size = first_and_last and first_and_last[1] - first_and_last[0]
    return Operation(label, as_source=lambda _: Source(label, size, view=view))(dataset)


def _part_of_rows(dataset: Dataset, start: float, end: float, seed: int) -> Dataset:
    def is_in_part(row: Item, index: int) -> bool:
        return start <= epoch_generator(seed, index).random() < end

    drawn, label = filter(is_in_part)(dataset), _part_label(start, end, seed)
    source = Source(label, rows=lambda epoch_read: drawn.read(replace(epoch_read, epoch=0, kind="train")))
    return Operation(label, as_source=lambda _: source)(dataset)


def _part_label(start: float, end: float, seed: int) -> str:
    return f"split({start:g} to {end:g}, seed={seed})"
