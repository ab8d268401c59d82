"""Operations that stay integers as long as only indices flow, so that a batch of columns is one gather."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ..call import name_of, named
from .dataset import Operation
from .place import Order, Pass, natural
from .rows import batched

__all__ = ["batch", "permutation", "shuffle", "take"]


@dataclass(frozen=True, slots=True)
class Groups:
    """An order of groups of indices: at each start, up to `size` of them."""

    order: Order
    starts: Order
    size: int

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Any]:
        return (self.order[start : start + self.size] for start in self.starts)

    def __getitem__(self, part: slice, /) -> Groups:
        return replace(self, starts=self.starts[part])


def shuffle(*, seed: int) -> Operation:
    """Put indices in an order that is a pure function of `(seed, epoch)`, the same on every machine.

    It comes before the first row operation, and not on a stream: ValueError when the pipe is built, and for
    a seed that is not an integer from 0 to 2**32 - 1. After `batch`, whole batches change places.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> shuffled = pipe(data.source(range(5)), data.shuffle(seed=7))
    >>> list(shuffled), list(shuffled.open(data.Cursor(epoch=1)))
    ([1, 0, 4, 3, 2], [1, 3, 4, 2, 0])
    """
    if natural(seed, "the seed of shuffle") >= 2**32:
        raise ValueError(f"the seed of shuffle must be less than 2**32; got {seed}")
    return Operation(
        f"shuffle(seed={seed})",
        on_order=lambda order, now: _gather(order, permutation(seed, now.epoch, len(order))),
        size=lambda size: size,
    )


def take(n: int | Callable[..., int]) -> Operation:
    """Keep the first `n` items, and read no more than them; `n` may be a function, called once an epoch.

    The function gets what it names of `epoch` and `kind`. Raise ValueError unless `n`, or what the function
    returns, is an integer of at least 0.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> growing = pipe(data.source("abcdef"), data.take(lambda epoch: 2 + epoch))
    >>> list(growing), list(growing.open(data.Cursor(epoch=2)))
    (['a', 'b'], ['a', 'b', 'c', 'd'])
    """
    if not callable(n):
        whole = natural(n, "the n of take(n)")
        return _take(f"take({whole})", lambda now: whole, lambda size: min(size, whole))
    label, call = f"take({name_of(n)})", named(n, offers=("epoch", "kind"), values=0, what="take function")

    def count(now: Pass) -> int:
        return natural(call(epoch=now.epoch, kind=now.kind), f"what the function of {label} returns")

    return _take(label, count, lambda size: None)


def batch(n: int, *, drop_last: bool = False) -> Operation:
    """Join every `n` items into one batch, the last ones too when they are fewer, unless `drop_last`.

    Columns of `arrays` are gathered, `(b, ...)` each; rows are stacked by `collate`. Raise ValueError
    unless `n` is an integer of at least 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abcde"), data.batch(2)))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    size = natural(n, "the n of batch(n)", least=1)
    label = f"batch({size}, drop_last=True)" if drop_last else f"batch({size})"

    def count(items: int) -> int:
        return items // size if drop_last else -(-items // size)

    return Operation(
        label,
        on_rows=lambda rows, now: batched(rows, size, drop_last=drop_last, now=now, label=label),
        on_order=lambda order, now: Groups(order, range(0, count(len(order)) * size, size), size),
        size=count,
    )


def permutation(seed: int, epoch: int, n: int) -> memoryview:
    """Return the integers below `n`, `(n,)` of int64, sorted by random bits.

    The bits are MLX's Threefry on the CPU, whatever the default device, and equal bits stay in order: the
    result depends neither on the machine nor on whether numpy is there to sort faster. The key counts epochs
    down from the top, so that it is none that a small seed makes for a model.

    >>> permutation(7, 0, 5).tolist()
    [1, 0, 4, 3, 2]
    """
    from ..door import mx

    with mx.stream(mx.cpu):
        key = mx.array([seed, 2**32 - 1 - epoch], dtype=mx.uint32)
        bits = mx.random.split(key, (n + 1) // 2).flatten()[:n]
        mx.eval(bits)
        try:
            return memoryview(_by_numpy(bits))
        except ImportError:
            return memoryview(_by_mlx(bits))


def _by_numpy(bits: Any) -> Any:
    """Return the stable order of `(n,)` uint32, half by half: numpy sorts 16 bits by radix, fast."""
    import numpy as np

    words = np.asarray(bits)
    order = np.argsort(words.astype(np.uint16), kind="stable")
    return order[np.argsort((words >> 16).astype(np.uint16)[order], kind="stable")]


def _by_mlx(bits: Any) -> Any:
    """Return the same order: with its index in the low half, no value equals another."""
    from ..door import mx

    index = mx.arange(bits.size, dtype=mx.uint64)
    order = (mx.sort((bits.astype(mx.uint64) << 32) | index) & 0xFFFFFFFF).astype(mx.int64)
    mx.eval(order)
    return order


def _gather(order: Order, at: memoryview) -> Order:
    """Return the order with its items in the places that `at` says."""
    if isinstance(order, Groups):
        return replace(order, starts=_gather(order.starts, at))
    if order == range(len(order)):
        return at
    return memoryview(array("q", [order[i] for i in at]))


def _take(label: str, count: Callable[[Pass], int], size: Callable[[int], int | None]) -> Operation:
    return Operation(
        label,
        on_rows=lambda rows, now: islice(rows, count(now)),
        on_order=lambda order, now: order[: count(now)],
        size=size,
    )
