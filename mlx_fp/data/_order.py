"""Operations that stay integers as long as only indices flow, so that a batch of columns is one gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Any

from more_itertools import chunked

from ..core._signature import name_of, with_context
from ._cursor import Pass, mapped, natural
from ._dataset import Operation, same
from ._random import draws, permutation, seeded
from ._stack import stack as stacked
from ._view import Groups, gather

__all__ = ["batch", "shard", "shuffle", "skip", "take", "window"]

_END = object()


def shuffle(*, seed: int, window: int | None = None) -> Operation:
    """Put items in an order that is a pure function of `(seed, epoch)`, the same on every machine.

    Without `window` it moves indices: it comes before the first row operation, and not on a stream. With it, it
    shuffles any rows by drawing each from `window` that it holds. After `batch`, whole batches change places.
    ValueError when the pipe is built where there are no indices, and for a seed that is not an integer from 0 to
    2**32 - 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> shuffled = pipe(data.source(range(5)), data.shuffle(seed=7))
    >>> list(shuffled), list(shuffled.open(data.Cursor(epoch=1)))
    ([1, 0, 4, 3, 2], [1, 3, 4, 2, 0])
    >>> list(pipe(data.stream(lambda: "abcdef"), data.shuffle(seed=7, window=3)))
    ['a', 'd', 'e', 'c', 'f', 'b']
    """
    seeded(seed, "shuffle")
    if window is not None:
        held = natural(window, "the window of shuffle", least=1)
        label = f"shuffle(seed={seed}, window={held})"
        return Operation(label, lambda rows, now: _mixed_up(rows, held, seed, now), size=lambda size: size, calls=False)
    return Operation(
        f"shuffle(seed={seed})",
        on_order=lambda order, now: gather(order, permutation(seed, now.epoch, len(order))),
        size=lambda size: size,
        needs=": shuffle before it, or rows with shuffle(seed=…, window=…)",
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
    label, count = _count(n, "take")
    return Operation(
        label,
        on_rows=lambda rows, now: islice(rows, max(count(now) - now.start, 0)),
        on_order=lambda order, now: order[: count(now)],
        size=lambda size: None if callable(n) else min(size, n),
        seek=same,
        calls=False,
    )


def skip(n: int | Callable[..., int]) -> Operation:
    """Leave out the first `n` items; `n` may be a function, as for `take`.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abcdef"), data.skip(4)))
    ['e', 'f']
    """
    label, count = _count(n, "skip")
    return Operation(
        label,
        on_rows=lambda rows, now: rows,  # `seek` is all there is to it
        on_order=lambda order, now: order[count(now) :],
        size=lambda size: None if callable(n) else max(size - n, 0),
        seek=lambda index, now: index + count(now),
        calls=False,
    )


def shard(index: int, count: int, *, drop_last: bool = False) -> Operation:
    """Keep every `count`-th item from item `index` on: one process of several takes its share, and all of them all.

    With `drop_last` all shards have one length, as training in step with each other needs. ValueError unless
    `index` is from 0 to `count` - 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> [list(pipe(data.source("abcde"), data.shard(i, 2))) for i in range(2)]
    [['a', 'c', 'e'], ['b', 'd']]
    """
    all_of = natural(count, "the count of shard(index, count)", least=1)
    if natural(index, "the index of shard(index, count)") >= all_of:
        raise ValueError(f"the index of shard(index, count) must be less than the count; got {index} of {count}")

    def end(size: int) -> int:
        return size - size % all_of if drop_last else size

    def whole(rows: Iterator[Any]) -> Iterator[Any]:
        others = all_of - index - 1  # that come after it, and make its round whole
        for row in rows:
            if len(list(islice(rows, others))) < others:
                return
            yield row
            next(islice(rows, index, index), None)  # those before it in the next round

    return Operation(
        f"shard({index}, {count}, drop_last=True)" if drop_last else f"shard({index}, {count})",
        on_rows=lambda rows, now: whole(rows) if drop_last else islice(rows, 0, None, all_of),
        on_order=lambda order, now: order[index : end(len(order)) : all_of],
        size=lambda size: len(range(index, end(size), all_of)),
        seek=lambda i, now: index + i * all_of,
        calls=False,
    )


def batch(n: int, *, drop_last: bool = False, stack: Callable[[list[Any]], Any] = stacked) -> Operation:
    """Join every `n` items into one batch, the last ones too when they are fewer, unless `drop_last`.

    Columns of `arrays` are gathered, `(b, ...)` each; rows are stacked by `data.stack`, or by another function of a
    list of rows: `stack=list` leaves them as they are, to be padded. A list of numbers inside a row is an array, so
    rows of `{"ids": [1, 2, 3]}` give one `(b, 3)`; where lengths differ, pad them. ValueError unless `n` is an integer
    of at least 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abcde"), data.batch(2)))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    size = natural(n, "the n of batch(n)", least=1)
    if not callable(stack):
        raise TypeError(f"the stack of batch is a function of a list of rows, as in stack=list; got {stack!r}")
    extra = f"{', drop_last=True' if drop_last else ''}{'' if stack is stacked else f', stack={name_of(stack)}'}"
    label = f"batch({size}{extra})"

    def count(items: int) -> int:
        return items // size if drop_last else -(-items // size)

    def batches(rows: Iterator[Any], now: Pass) -> Iterator[Any]:
        groups = chunked(rows, size)  # toolz.partition_all reads a group ahead
        whole = takewhile(lambda group: len(group) == size, groups) if drop_last else groups
        return mapped(stack, whole, now, label)

    return Operation(
        label,
        on_rows=batches,
        on_order=(lambda order, now: Groups(order, range(0, count(len(order)) * size, size), size))
        if stack is stacked
        else None,
        size=count,
        seek=lambda index, now: index * size,
        calls=stack not in (stacked, list),
    )


def window(n: int, *, step: int = 1) -> Operation:
    """Join every `n` neighbours into one batch, beginning `step` items after the one before; never fewer than `n`.

    On one long column of tokens it makes the sequences of a language model, each a slice.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abcde"), data.window(3, step=2)))
    [['a', 'b', 'c'], ['c', 'd', 'e']]
    """
    size = natural(n, "the n of window(n)", least=1)
    stride = natural(step, "the step of window(n)", least=1)
    label = f"window({size}, step={stride})"

    def starts(items: int) -> range:
        return range(0, max(items - size + 1, 0), stride)

    return Operation(
        label,
        on_rows=lambda rows, now: mapped(stacked, _windows(rows, size, stride), now, label),
        on_order=lambda order, now: Groups(order, starts(len(order)), size),
        size=lambda items: len(starts(items)),
        seek=lambda index, now: index * stride,
        calls=False,
    )


def _count(n: int | Callable[..., int], what: str) -> tuple[str, Callable[[Pass], int]]:
    """Return the label of an operation that counts, and its count in a pass."""
    if not callable(n):
        whole = natural(n, f"the n of {what}(n)")
        return f"{what}({whole})", lambda now: whole
    label = f"{what}({name_of(n)})"
    call = with_context(n, offers=("epoch", "kind"), values=0, what=f"{what} function")
    return label, lambda now: natural(call(epoch=now.epoch, kind=now.kind), f"what the function of {label} returns")


def _windows(rows: Iterator[Any], size: int, step: int) -> Iterator[list[Any]]:
    held = list(islice(rows, size))
    while len(held) == size:
        yield held
        next(islice(rows, step - size, step - size), None) if step > size else None
        held = held[step:] + list(islice(rows, min(step, size)))


def _mixed_up(rows: Iterator[Any], size: int, seed: int, now: Pass) -> Iterator[Any]:
    """Yield each row from `size` that are held, drawn at random, the next row in its place."""
    draw = draws(seed, now.epoch).random
    held = list(islice(rows, size))
    while held:
        at = int(draw() * len(held))
        yield held[at]
        row = next(rows, _END)  # it takes the place, and the last one held does where there is none
        held[at] = held[-1] if row is _END else row
        if row is _END:
            held.pop()
