"""Train, validation and test data: one dataset in parts, and a plan of all three."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from toolz import pipe

from ..core._pickling import Picklable
from ._cursor import Pass
from ._dataset import Dataset, Operation, Source
from ._random import draws, permutation, seeded
from ._rows import filter
from ._source import as_dataset
from ._view import View, gather

__all__ = ["Splits", "split", "splits"]


@dataclass(frozen=True, slots=True)
class Splits(Picklable):
    """What to train on, to validate on and to test on; made by `splits`, taken by `fit` and `evaluate`."""

    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None


def splits(
    *, train: Any, validation: Any = None, test: Any = None, shared: Callable[[Any], Any] | Iterable[Any] = ()
) -> Splits:
    """Plan the data of a run. Each part is a dataset or what makes one, or a tuple of it and operations of its own.

    `shared` is an operation, or several, that come first in every part; a part's own come after them.

    >>> from mlx_fp import data
    >>> plan = splits(train=(data.source(range(8)), data.take(4)), test=range(2), shared=data.map(lambda n: n * n))
    >>> list(plan.train), plan.validation, list(plan.test)
    ([0, 1, 4, 9], None, [0, 1])
    """
    common = (shared,) if callable(shared) or not isinstance(shared, Iterable) else tuple(shared)
    if not all(map(callable, common)):
        raise TypeError(f"shared is an operation or several; got {shared!r}")
    return Splits(*(None if part is None else _part(part, common) for part in (train, validation, test)))  # type: ignore[arg-type]


def split(fractions: Sequence[float], *, seed: int) -> Callable[[Dataset], tuple[Dataset, ...]]:
    """Divide a dataset in parts, `fractions` of its rows: no row is in two, whatever the epoch.

    What comes before is read as in epoch 0 always: shuffle after it. Indices are drawn once by `seed`. Of a stream, and
    after row operations, each row is drawn for a part by its index, so that the parts come out near their fractions.
    Raise TypeError unless there is a number for each part, and ValueError for fractions that are not positive or add
    up to more than 1, and where a part gets no row.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> train, held_out = pipe(data.source(range(10)), data.split((0.8, 0.2), seed=7))
    >>> sorted([*train, *held_out]) == list(range(10)), len(held_out)
    (True, 2)
    """
    ends = _ends(fractions)
    seeded(seed, "split")

    def parts(dataset: Dataset) -> tuple[Dataset, ...]:
        if not isinstance(dataset, Dataset):
            got = type(dataset).__name__
            raise TypeError(f"split takes a Dataset, not a {got}: begin with source, arrays or stream")
        between = zip((0.0, *ends), ends, strict=False)
        if dataset.indexed:
            return tuple(_of_indices(dataset, a, b, seed) for a, b in between)
        return tuple(_of_rows(dataset, a, b, seed) for a, b in between)

    return parts


def _ends(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return where each part ends, the whole being 1."""
    try:
        given = tuple(fractions)
        ends = tuple(accumulate(given))
        fit = bool(ends) and all(part > 0 for part in given) and ends[-1] <= 1 + 1e-9
    except TypeError:
        what = "split takes a fraction for each part, as in split((0.8, 0.2), seed=7)"
        raise TypeError(f"{what}; got {fractions!r}") from None
    if not fit:
        raise ValueError(f"the fractions of split must be positive and add up to 1 at most; got {given}")
    return ends


def _part(part: Any, shared: Sequence[Any]) -> Dataset:
    own: Sequence[Any] = ()
    if _has_operations(part):
        part, *own = part
    made: Dataset = pipe(as_dataset(part), *shared, *own)
    return made


def _has_operations(part: Any) -> bool:
    """Whether a part is a tuple of data and operations, and not one of batches."""
    if not isinstance(part, tuple) or not part:
        return False
    return isinstance(part[0], Dataset) or (len(part) > 1 and all(map(callable, part[1:])))


def _of_indices(dataset: Dataset, start: float, end: float, seed: int) -> Dataset:
    label = _label(start, end, seed)

    def bounds(size: int) -> tuple[int, int]:
        first, last = round(start * size), round(end * size)
        if first == last:
            raise ValueError(f"{label} of {size} items is empty")
        return first, last

    def view(now: Pass) -> View:
        whole = dataset.view(replace(now, epoch=0, kind="train"))
        first, last = bounds(len(whole))
        return replace(whole, order=gather(whole.order, permutation(seed, 0, len(whole))[first:last]))

    size = None if dataset.size is None else bounds(dataset.size)
    return Operation(label, whole=lambda _: Source(label, size and size[1] - size[0], view=view))(dataset)


def _of_rows(dataset: Dataset, start: float, end: float, seed: int) -> Dataset:
    def inside(row: Any, index: int) -> bool:
        return start <= draws(seed, index).random() < end

    drawn = filter(inside)(dataset)
    source = Source(_label(start, end, seed), rows=lambda now: drawn.read(replace(now, epoch=0, kind="train")))
    return Operation(source.label, whole=lambda _: source)(dataset)


def _label(start: float, end: float, seed: int) -> str:
    return f"split({start:g} to {end:g}, seed={seed})"
