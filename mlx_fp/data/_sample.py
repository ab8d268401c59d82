"""Items drawn by weight: which index comes where in an epoch is known before anything is read."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, starmap
from itertools import repeat as again
from math import inf
from typing import Any

from ._cursor import Pass, natural
from ._dataset import Operation
from ._random import draws, seeded
from ._view import Order, gather

__all__ = ["sample"]

_STREAM = 1
"""The random numbers are none that a shuffle or a mix of the same seed has."""


def sample(weights: Sequence[float], *, seed: int, n: int | None = None) -> Operation:
    """Draw items with replacement, each in proportion to its weight; another draw each epoch.

    Item `index` of an epoch is a pure function of `(seed, epoch, index)`. An item of weight 0 never comes. It works on
    indices: put it before the first row operation, and not on a stream; after `batch`, it draws batches.

    Args:
        weights: A number of at least 0 for each item: a list, or an array of numpy's or MLX's, in the items' order.
        seed: An integer from 0 to 2**32 - 1.
        n: How many items an epoch has; as many as there are weights if it is not given.

    Raises:
        TypeError: When it is built, for weights that are no sequence of numbers.
        ValueError: When it is built, for a weight that is negative, NaN or infinite, for weights that sum to 0, and
            after a row operation. When it is opened, unless there is a weight for each item.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> drawn = pipe(data.source("abc"), data.sample([8, 0, 1], seed=7, n=6))
    >>> "".join(drawn), "".join(drawn.open(data.Cursor(epoch=1))), "".join(drawn.open(data.Cursor(epoch=1, index=4)))
    ('aaaaac', 'acaaca', 'ca')
    """
    ends = _running_sums(weights)
    seeded(seed, "sample")
    count = len(ends) if n is None else natural(n, "the n of sample", least=1)
    label = f"sample({len(ends)} weights, seed={seed}{'' if n is None else f', n={count}'})"

    def drawn(order: Order, now: Pass) -> Order:
        if len(order) != len(ends):
            raise ValueError(f"{label} takes a weight for each item, and there are {len(order)} items")
        return gather(order, _places(ends, seed, now.epoch, count))

    return Operation(label, on_order=drawn, size=lambda size: count, needs=": sample before it")


def _running_sums(weights: Any) -> array[float]:
    """Return the sum of the weights up to and with each, checked."""
    wanted = "sample takes a weight for each item, a list or an array of numbers"
    if isinstance(weights, (Mapping, str, bytes)) or not hasattr(weights, "__len__"):
        raise TypeError(f"{wanted}; got {type(weights).__name__}")
    try:
        given = array("d", weights.tolist() if hasattr(weights, "tolist") else weights)
    except TypeError as error:
        raise TypeError(f"{wanted}: {error}") from None
    ends = array("d", accumulate(given))
    if ends and min(given) >= 0 and 0 < ends[-1] < inf:
        return ends
    for i, weight in enumerate(given):
        if not 0 <= weight < inf:
            raise ValueError(f"the weights of sample are finite numbers of at least 0; weight {i} is {weight}")
    raise ValueError(f"the weights of sample must have a positive, finite sum; it is {ends[-1] if ends else 0}")


def _places(ends: array[float], seed: int, epoch: int, count: int) -> memoryview:
    """Return where the draws of an epoch fall, `(count,)` of int64, the same with numpy and without."""
    random, total = draws(seed, epoch, _STREAM).random, ends[-1]
    last = ends.index(total)  # the last item with a weight: rounding could put a draw behind it
    drawn = starmap(random, again((), count))
    try:
        import numpy as np
    except ImportError:
        return memoryview(array("q", [bisect_right(ends, one * total, 0, last) for one in drawn]))
    at = np.fromiter(drawn, np.float64, count) * total
    order = np.argsort(at)  # a search for what rises is four times as fast
    found: Any = np.empty(count, np.int64)
    found[order] = np.minimum(np.searchsorted(np.asarray(ends), at[order], side="right"), last)
    return memoryview(found)
