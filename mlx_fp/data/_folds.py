"""Cut the rows of a dataset into folds, each with the same operations after the cut."""

from __future__ import annotations

from array import array
from dataclasses import replace

from ._cursor import EpochRead
from ._dataset import Dataset, Operation, Source
from ._random import check_seed, permutation
from ._view import Order, View, gather

__all__ = ["folds"]


def folds(dataset: Dataset, count: int, seed: int) -> list[tuple[Dataset, Dataset]]:
    """Return for each fold the rest of the rows and the fold, both as datasets with the operations of `dataset`.

    The rows of the source are drawn once by `seed`, before any operation. The fold itself is read without operations
    on indices that vary with the epoch, such as `shuffle`.

    Args:
        dataset: The dataset, whose source has indices.
        count: The number of folds, 2 or more.
        seed: An int from 0 to 2**32 - 1.

    Raises:
        ValueError: The source has no indices, or fewer items than folds.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> for rest, fold in folds(pipe(data.source(range(5)), data.shuffle(seed=1), data.batch(3)), 2, seed=7):
    ...     [sorted(n for batch in part for n in batch.tolist()) for part in (rest, fold)]
    [[2, 3, 4], [0, 1]]
    [[0, 1], [2, 3, 4]]
    """
    source, operations = Dataset(dataset.source), dataset.operations
    seed = check_seed(seed, "k_fold")
    if not source.indexed:
        raise ValueError(f"k_fold cuts rows by their indices, and {source.source.label} gives rows without indices")
    size = len(source.view(EpochRead(epoch=0, kind="train")))
    if size < count:
        raise ValueError(f"k_fold({count}) needs a row for each fold; {source!r} has {size}")
    held_operations = tuple(each for each in operations if not (each.varies and each.on_order is not None))
    bounds = [(size * i // count, size * (i + 1) // count) for i in range(count)]

    def part(i: int, is_held: bool) -> Dataset:
        label = f"{'fold' if is_held else 'all but fold'} {i + 1} of {count}, seed={seed}"
        taken = _taken(seed, size, *bounds[i], is_held=is_held)

        def view(epoch_read: EpochRead) -> View:
            all_items = source.view(replace(epoch_read, epoch=0, kind="train"))
            return replace(all_items, order=gather(all_items.order, taken))

        cut = Operation(label, as_source=lambda _: Source(label, len(taken), view=view))(source)
        return replace(cut, operations=held_operations if is_held else operations)

    return [(part(i, False), part(i, True)) for i in range(count)]


def _taken(seed: int, size: int, first: int, last: int, *, is_held: bool) -> Order:
    """Return the indices of a fold, or of all others."""
    order = permutation(seed, 0, size)
    return order[first:last] if is_held else memoryview(array("q", [*order[:first], *order[last:]]))
