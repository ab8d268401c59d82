"""Sample items by weight; the indices of an epoch are drawn before any item is read."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, repeat, starmap
from math import inf
from typing import Any

from ._cursor import EpochRead, non_negative_int
from ._dataset import Operation
from ._random import check_seed, epoch_generator
from ._view import Order, gather

__all__ = ["sample"]

_STREAM = 1
"""The stream of random numbers: `shuffle` and `mix` with the same seed draw from another stream."""

_SHOWN = 8
"""The maximum number of weights that a label shows."""


def sample(weights: Sequence[float], *, seed: int, n: int | None = None) -> Operation:
    """Draw items with replacement, in proportion to their weights; each epoch has another draw.

    The item `index` of an epoch is a pure function of `(seed, epoch, index)`. An item of weight 0 is never drawn. The
    operation works on indices: put it before the first row operation, and not on a stream. After `batch`, it draws
    batches. For example, weights of 9 for a rare class and 1 for the others balance the classes.

    Args:
        weights: A number of at least 0 for each item, in the order of the items: a list, or an array of numpy or MLX.
        seed: Integer from 0 to 2**32 - 1.
        n: Number of items of an epoch, at least 1; by default as many as there are weights.

    Raises:
        TypeError: `weights` is not a sequence of numbers.
        ValueError: A weight is negative, NaN or infinite, the sum of the weights is 0, or the pipe has no indices.
            When the data are read: there is not one weight for each item.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> drawn = pipe(data.source("abc"), data.sample([8, 0, 1], seed=7, n=6))
    >>> "".join(drawn), "".join(drawn.open(data.Cursor(epoch=1))), "".join(drawn.open(data.Cursor(epoch=1, index=4)))
    ('aaaaac', 'acaaca', 'ca')
    """
    sums = _running_sums(weights)
    seed = check_seed(seed, "sample")
    count = len(sums) if n is None else non_negative_int(n, "the n of sample", minimum=1)
    shown = repr(weights) if isinstance(weights, (list, tuple)) and len(weights) <= _SHOWN else f"{len(sums)} weights"
    label = f"sample({shown}, seed={seed}{'' if n is None else f', n={count}'})"

    def draw_indices(order: Order, epoch_read: EpochRead) -> Order:
        if len(order) != len(sums):
            raise ValueError(
                f"{label} takes a weight for each item: there are {len(sums)} weights and {len(order)} items"
            )
        return gather(order, _draw(sums, seed, epoch_read.epoch, count))

    return Operation(label, on_order=draw_indices, size=lambda size: count, needs=": sample before it", varies=True)


def _running_sums(weights: Any) -> array[float]:
    """Check the weights, and return for each weight the sum of all weights up to it."""
    expected = "sample takes a weight for each item, a list or an array of numbers"
    if isinstance(weights, (Mapping, str, bytes)) or not hasattr(weights, "__len__"):
        raise TypeError(f"{expected}; got {type(weights).__name__}")
    try:
        numbers = array("d", weights.tolist() if hasattr(weights, "tolist") else weights)
    except TypeError as error:
        raise TypeError(f"{expected}: {error}") from None
    sums = array("d", accumulate(numbers))
    if sums and min(numbers) >= 0 and 0 < sums[-1] < inf:
        return sums
    for i, weight in enumerate(numbers):
        if not 0 <= weight < inf:
            raise ValueError(f"the weights of sample are finite numbers of at least 0; weight {i} is {weight}")
    raise ValueError(f"the weights of sample must have a positive, finite sum; it is {sums[-1] if sums else 0}")


def _draw(sums: array[float], seed: int, epoch: int, count: int) -> memoryview:
    """Return the drawn indices of an epoch, `(count,)` of int64, the same with numpy and without."""
    random, total = epoch_generator(seed, epoch, _STREAM).random, sums[-1]
    last = sums.index(total)  # the last item with a positive weight; rounding could put a draw behind it
    numbers = starmap(random, repeat((), count))
    try:
        import numpy as np
    except ImportError:
        return memoryview(array("q", [bisect_right(sums, number * total, 0, last) for number in numbers]))
    positions = np.fromiter(numbers, np.float64, count) * total
    order = np.argsort(positions)  # a search for sorted positions is four times as fast
    indices: Any = np.empty(count, np.int64)
    indices[order] = np.minimum(np.searchsorted(np.asarray(sums), positions[order], side="right"), last)
    return memoryview(indices)
