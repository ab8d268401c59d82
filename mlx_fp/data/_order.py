"""Operations on indices: as long as a pipe passes only indices, reading a batch of columns is one gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, takewhile

from more_itertools import chunked

from ..core._context import with_context
from ._call_text import call_text
from ._cursor import EpochRead, map_rows, non_negative_int
from ._dataset import Operation, same_index
from ._protocols import Batching
from ._stack import stack as stack_rows
from ._types import Item
from ._view import Groups

__all__ = ["batch", "shard", "skip", "take", "window"]


def take(n: int | Callable[..., int]) -> Operation:
    """Keep the first `n` items of an epoch, and read no more than these.

    Args:
        n: Number of items, at least 0; or a function that returns it. The function is called once per epoch, and gets
            `epoch` and `kind` where it has parameters with these names.

    Raises:
        TypeError: The function requires another parameter.
        ValueError: `n` is not an integer of at least 0. The result of a function is checked when the data are read.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> growing = pipe(data.source("abcdef"), data.take(lambda epoch: 2 + epoch))
    >>> list(growing), list(growing.open(data.Cursor(epoch=2)))
    (['a', 'b'], ['a', 'b', 'c', 'd'])
    """
    label, item_count, depends = _item_count(n, "take")
    return Operation(
        label,
        on_rows=lambda rows, epoch_read: islice(rows, max(item_count(epoch_read) - epoch_read.start, 0)),
        on_order=lambda order, epoch_read: order[: item_count(epoch_read)],
        size=lambda size: None if callable(n) else min(size, n),
        seek=same_index,
        calls=False,
        varies=depends,
    )


def skip(n: int | Callable[..., int]) -> Operation:
    """Leave out the first `n` items of an epoch.

    Args:
        n: Number of items, at least 0; or a function that returns it, as for `take`.

    Raises:
        TypeError: The function requires another parameter.
        ValueError: `n` is not an integer of at least 0, as for `take`.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abcdef"), data.skip(4)))
    ['e', 'f']
    """
    label, item_count, depends = _item_count(n, "skip")
    return Operation(
        label,
        on_rows=lambda rows, epoch_read: rows,  # `seek` has skipped the items already
        on_order=lambda order, epoch_read: order[item_count(epoch_read) :],
        size=lambda size: None if callable(n) else max(size - n, 0),
        seek=lambda output_index, epoch_read: output_index + item_count(epoch_read),
        calls=False,
        varies=depends,
    )


def shard(index: int, count: int, *, drop_last: bool = False) -> Operation:
    """Keep every `count`-th item, beginning with item `index`: the share of one process of several.

    For example, process 1 of 4 keeps the items 1, 5, 9 and so on. All shards together have all items.

    Args:
        index: Number of this shard, from 0 to `count` - 1.
        count: Number of shards, at least 1.
        drop_last: Whether to leave out the last items so that all shards have the same length. Processes that train
            in step with each other need this. False by default.

    Raises:
        ValueError: `index` or `count` is out of range.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> [list(pipe(data.source("abcde"), data.shard(i, 2))) for i in range(2)]
    [['a', 'c', 'e'], ['b', 'd']]
    """
    shards = non_negative_int(count, "the count of shard(index, count)", minimum=1)
    first = non_negative_int(index, "the index of shard(index, count)")
    if first >= shards:
        raise ValueError(f"the index of shard(index, count) must be less than the count; got {index} of {count}")

    def end(size: int) -> int:
        return size - size % shards if drop_last else size

    def complete_rounds(rows: Iterator[Item]) -> Iterator[Item]:
        later_shards = shards - first - 1
        for row in rows:
            if len(list(islice(rows, later_shards))) < later_shards:
                return  # the last round is incomplete
            yield row
            next(islice(rows, first, first), None)  # skip the items of earlier shards in the next round

    return Operation(
        call_text("shard", first, shards, drop_last=drop_last or None),
        on_rows=lambda rows, epoch_read: complete_rounds(rows) if drop_last else islice(rows, 0, None, shards),
        on_order=lambda order, epoch_read: order[first : end(len(order)) : shards],
        size=lambda size: len(range(first, end(size), shards)),
        seek=lambda output_index, epoch_read: first + output_index * shards,
        calls=False,
    )


def batch(n: int, *, drop_last: bool = False, stack: Callable[[list[Item]], Item] = stack_rows) -> Operation:
    """Combine every `n` items into one batch.

    Columns of `arrays` are gathered, `(b, ...)` each. Rows are stacked by `data.stack`. A list of numbers inside a row
    counts as an array: for example, rows of `{"ids": [1, 2, 3]}` give one array `(b, 3)`. Rows of different lengths
    need `stack=list` and `pad`.

    Args:
        n: Number of items of a batch, at least 1.
        drop_last: Whether to leave out a last batch with fewer than `n` items; False by default.
        stack: Function that makes a batch of a list of rows; `data.stack` by default. `stack=list` keeps the list.

    Raises:
        TypeError: `stack` is not callable.
        ValueError: `n` is not an integer of at least 1. When the data are read: rows do not stack.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abcde"), data.batch(2)))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    size = non_negative_int(n, "the n of batch(n)", minimum=1)
    if not callable(stack):
        raise TypeError(f"the stack of batch is a function of a list of rows, as in stack=list; got {stack!r}")
    label = call_text("batch", size, drop_last=drop_last or None, stack=None if stack is stack_rows else stack)
    batching = Batching(size, drop_last, stack)

    def batches(rows: Iterator[Item], epoch_read: EpochRead) -> Iterator[Item]:
        groups = chunked(rows, size)  # toolz.partition_all would read one group ahead
        complete = takewhile(lambda group: len(group) == size, groups) if drop_last else groups
        return map_rows(stack, complete, epoch_read, label)

    return Operation(
        label,
        on_rows=batches,
        on_order=(lambda order, epoch_read: batching.groups(order)) if stack is stack_rows else None,
        size=batching.count,
        seek=lambda output_index, epoch_read: output_index * size,
        calls=stack not in (stack_rows, list),
        batching=batching,
    )


def window(n: int, *, step: int = 1) -> Operation:
    """Combine every `n` neighbouring items into one batch, with overlap where `step` is less than `n`.

    For example, `window(65, step=64)` makes the sequences of a language model from one long column of tokens. Each
    sequence is a slice of the column.

    Args:
        n: Number of items of a window, at least 1; no window has fewer.
        step: Distance between the beginnings of two windows, in items, at least 1; 1 by default.

    Raises:
        ValueError: `n` or `step` is not an integer of at least 1.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("abcde"), data.window(3, step=2)))
    [['a', 'b', 'c'], ['c', 'd', 'e']]
    """
    size = non_negative_int(n, "the n of window(n)", minimum=1)
    stride = non_negative_int(step, "the step of window(n)", minimum=1)
    label = call_text("window", size, step=None if stride == 1 else stride)

    def starts(items: int) -> range:
        return range(0, max(items - size + 1, 0), stride)

    return Operation(
        label,
        on_rows=lambda rows, epoch_read: map_rows(stack_rows, _windows(rows, size, stride), epoch_read, label),
        on_order=lambda order, epoch_read: Groups(order, starts(len(order)), size),
        size=lambda items: len(starts(items)),
        seek=lambda output_index, epoch_read: output_index * stride,
        calls=False,
    )


def _item_count(n: int | Callable[..., int], verb: str) -> tuple[str, Callable[[EpochRead], int], bool]:
    """Return the label of `take` or `skip`, the function that returns its number of items, and whether it varies."""
    if not callable(n):
        number = non_negative_int(n, f"the n of {verb}(n)")
        return call_text(verb, number), lambda epoch_read: number, False
    label = call_text(verb, n)
    call = with_context(n, offers=("epoch", "kind"), values=0, what=f"{verb} function")
    name = f"the result of the function of {label}"

    def item_count(epoch_read: EpochRead) -> int:
        return non_negative_int(call(epoch=epoch_read.epoch, kind=epoch_read.kind), name)

    return label, item_count, bool(call.context)


def _windows(rows: Iterator[Item], size: int, step: int) -> Iterator[list[Item]]:
    neighbours = list(islice(rows, size))
    while len(neighbours) == size:
        yield neighbours
        next(islice(rows, step - size, step - size), None) if step > size else None
        neighbours = neighbours[step:] + list(islice(rows, min(step, size)))
