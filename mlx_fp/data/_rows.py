"""Operations on rows. They are lazy, keep the order, and read no row before it is needed."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count

from ..core._context import WithContext, with_context
from ..core._signature import name_of
from ._call_text import call_text
from ._cursor import CONTEXT, EpochRead, close, map_rows, note_location
from ._dataset import Operation, same_index
from ._random import check_seed, row_key
from ._stack import unstack
from ._tables import refuse_table
from ._types import Item, ItemFunction, UserFunction

__all__ = ["bind_context", "enumerate", "filter", "flat_map", "map", "row_operation", "tap", "unbatch", "varies"]


def map(f: UserFunction, *, key: int | None = None) -> Operation:
    """Replace each item by `f(item)`.

    `f` may change the item in place: sources and caches hand out copies of dicts, lists, tuples and arrays.

    Args:
        f: Function of one item. It also gets `index`, `epoch` and `kind` where it has parameters with these names.
        key: Seed from 0 to 2**32 - 1. With a seed, `f` also gets a random key for the row as `key`, shape `(2,)`,
            uint32. The key is a pure function of `(seed, epoch, index)`. None, the default, makes no keys.

    Raises:
        TypeError: `f` requires another parameter, or `key` is given and `f` does not name `key`.
        ValueError: `key` is not a seed.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("ab"), data.map(lambda letter, index: letter * index)))
    ['', 'b']
    >>> noise = data.map(lambda n, key: n + mx.random.uniform(key=key).item(), key=7)
    >>> list(noise(data.source([1, 2]))) == list(noise(data.source([1, 2])))
    True
    """
    seed = None if key is None else check_seed(key, "map")
    label = call_text("map", f, key=seed)
    call = with_context(f, offers=CONTEXT if seed is None else (*CONTEXT, "key"), what="map function")
    if seed is not None and "key" not in call.context:
        raise TypeError(f"{label} makes random keys, but {name_of(f)!r} does not name 'key'")
    return row_operation(label, lambda epoch_read: bind_context(call, epoch_read, seed), varies=varies(call))


def filter(f: UserFunction) -> Operation:
    """Keep the items for which `f(item)` is true.

    Args:
        f: Function of one item, with context as for `map`. Its `index` counts input items, whereas the `index` of the
            next operation counts the items that were kept.

    Raises:
        TypeError: `f` requires another parameter.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(range(6)), data.filter(lambda n: n % 2)))
    [1, 3, 5]
    """
    label, call = call_text("filter", f), with_context(f, offers=CONTEXT, what="filter function")
    return Operation(
        label,
        lambda rows, epoch_read: _filter_rows(bind_context(call, epoch_read), rows, epoch_read, label),
        varies=varies(call),
    )


def flat_map(f: Callable[..., Iterable[Item]]) -> Operation:
    """Replace each item by the items of the iterable `f(item)`, of which there may be none.

    Args:
        f: Function of one item that returns an iterable, with context as for `map`.

    Raises:
        TypeError: `f` requires another parameter.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(["to be", "or not"]), data.flat_map(str.split)))
    ['to', 'be', 'or', 'not']
    """
    label, call = call_text("flat_map", f), with_context(f, offers=CONTEXT, what="flat_map function")
    return Operation(
        label,
        lambda rows, epoch_read: _flatten_rows(bind_context(call, epoch_read), rows, epoch_read, label),
        varies=varies(call),
    )


def unbatch() -> Operation:
    """Split batches into rows, the inverse of `batch`.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source([1, 2, 3]), data.map(lambda n: {"n": n}), data.batch(2), data.unbatch()))[2]
    {'n': array(3, dtype=int32)}
    """
    return Operation(
        "unbatch()", lambda rows, epoch_read: _flatten_rows(unstack, rows, epoch_read, "unbatch()"), calls=False
    )


def enumerate(start: int = 0) -> Operation:
    """Pair each item with its number in the epoch: `(number, item)`.

    Args:
        start: Number of the first item of an epoch; 0 by default.

    Raises:
        TypeError: `start` is not an integer.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("ab"), data.enumerate()))
    [(0, 'a'), (1, 'b')]
    """
    if not hasattr(start, "__index__"):
        raise TypeError(f"the start of enumerate is an integer; got {start!r}")

    def number_rows(rows: Iterator[Item], epoch_read: EpochRead) -> Iterator[tuple[int, Item]]:
        return builtins.enumerate(rows, start + epoch_read.start)

    label = f"enumerate({start})" if start else "enumerate()"
    return Operation(label, number_rows, size=lambda size: size, seek=same_index, calls=False)


def tap(f: UserFunction) -> Operation:
    """Call `f(item)` for its side effect, and pass the item on unchanged.

    Args:
        f: Function of one item, with context as for `map`. Its result is ignored.

    Raises:
        TypeError: `f` requires another parameter.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("ab"), data.tap(print)))
    a
    b
    ['a', 'b']
    """
    label, call = call_text("tap", f), with_context(f, offers=CONTEXT, what="tap function")

    def bind(epoch_read: EpochRead) -> ItemFunction:
        observe = bind_context(call, epoch_read)
        return lambda row: (observe(row), row)[1]

    return row_operation(label, bind)


def row_operation(
    label: str,
    bind: Callable[[EpochRead], ItemFunction],
    *,
    calls: bool = True,
    varies: bool = False,
    divides: bool = False,
) -> Operation:
    """Make an operation on single items; `bind` returns the function of one item for one reading of an epoch.

    See `Operation` for `calls`, `varies` and `divides`.

    >>> from mlx_fp import data
    >>> list(row_operation("double", lambda epoch_read: lambda n: 2 * n)(data.source([1, 2])))
    [2, 4]
    """
    return Operation(
        label,
        lambda rows, epoch_read: map_rows(bind(epoch_read), rows, epoch_read, label),
        size=lambda size: size,
        seek=same_index,
        calls=calls,
        varies=varies,
        bind=bind,
        divides=divides,
    )


def varies(call: WithContext) -> bool:
    """Return whether a user's function gets the epoch, the kind, or a random key of each row.

    >>> from mlx_fp.core._context import with_context
    >>> varies(with_context(lambda row, index: row, offers=CONTEXT))
    False
    """
    return not {"epoch", "kind", "key"}.isdisjoint(call.context)


def bind_context(call: WithContext, epoch_read: EpochRead, seed: int | None = None) -> ItemFunction:
    """Return a function of one item that passes the context of this item to the call.

    >>> from mlx_fp.core._context import with_context
    >>> f = bind_context(with_context(lambda row, index: (row, index), offers=CONTEXT), EpochRead(0, "train", start=5))
    >>> f("a"), f("b")
    (('a', 5), ('b', 6))
    """
    if not call.context:
        return call.fn
    fixed = {name: getattr(epoch_read, name) for name in call.context if name in ("epoch", "kind")}
    if len(fixed) == len(call.context):
        return partial(call.fn, **fixed)
    indices, uses = count(epoch_read.start), call.context

    def call_with_place(row: Item) -> Item:
        index = next(indices)
        place: dict[str, object] = {"index": index} if "index" in uses else {}
        if "key" in uses:
            place["key"] = row_key(seed or 0, epoch_read.epoch, index)
        return call.fn(row, **fixed, **place)

    return call_with_place


def _filter_rows(f: ItemFunction, rows: Iterator[Item], epoch_read: EpochRead, label: str) -> Iterator[Item]:
    index = epoch_read.start
    try:
        for row in rows:
            if f(row):
                yield row
            index += 1
    except Exception as error:
        note_location(error, label, epoch_read, index)
        raise


def _flatten_rows(
    f: Callable[[Item], Iterable[Item]], rows: Iterator[Item], epoch_read: EpochRead, label: str
) -> Iterator[Item]:
    index = epoch_read.start
    try:
        for row in rows:
            items = f(row)
            refuse_table(label, items, iterated=True)
            try:
                yield from items
            finally:
                close(items)
            index += 1
    except Exception as error:
        note_location(error, label, epoch_read, index)
        raise
