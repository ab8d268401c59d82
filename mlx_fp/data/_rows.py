"""Operations on rows: lazy, in order, and never a row read that is not needed."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any

from ..core._signature import WithContext, name_of, with_context
from ._cursor import CONTEXT, Pass, blame, close, mapped
from ._dataset import Operation, same
from ._random import row_key, seeded
from ._stack import unstack
from ._tables import refuse_table

__all__ = ["bind_context", "each", "enumerate", "filter", "flat_map", "map", "tap", "unbatch"]


def map(f: Callable[..., Any], *, key: int | None = None) -> Operation:
    """Replace each item by `f(item)`; `f` also gets `index=`, `epoch=` and `kind=` if it names them.

    `f` may change the item in place: dicts, lists, tuples and arrays that a source or a cache keeps come as copies.
    With a seed as `key`, `f` must name `key` too: a random key of the row's own, a pure function of
    `(seed, epoch, index)`. Raise TypeError when `f` requires anything else.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("ab"), data.map(lambda letter, index: letter * index)))
    ['', 'b']
    >>> noise = data.map(lambda n, key: n + mx.random.uniform(key=key).item(), key=7)
    >>> list(noise(data.source([1, 2]))) == list(noise(data.source([1, 2])))
    True
    """
    label = f"map({name_of(f)})" if key is None else f"map({name_of(f)}, key={seeded(key, 'map')})"
    call = with_context(f, offers=CONTEXT if key is None else (*CONTEXT, "key"), what="map function")
    if key is not None and "key" not in call.context:
        raise TypeError(f"{label} makes random keys, but {name_of(f)!r} does not name 'key'")
    return each(label, lambda now: bind_context(call, now, key))


def filter(f: Callable[..., Any]) -> Operation:
    """Keep the items for which `f(item)` is true; `f` also gets `index=`, `epoch=` and `kind=` if it names them.

    `index` counts what comes in; the operation after it counts what comes out. Raise TypeError as `map` does.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(range(6)), data.filter(lambda n: n % 2)))
    [1, 3, 5]
    """
    label, call = f"filter({name_of(f)})", with_context(f, offers=CONTEXT, what="filter function")
    return Operation(label, lambda rows, now: _kept(bind_context(call, now), rows, now, label))


def flat_map(f: Callable[..., Iterable[Any]]) -> Operation:
    """Replace each item by the items of `f(item)`, none or many; `f` gets context as for `map`.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source(["to be", "or not"]), data.flat_map(str.split)))
    ['to', 'be', 'or', 'not']
    """
    label, call = f"flat_map({name_of(f)})", with_context(f, offers=CONTEXT, what="flat_map function")
    return Operation(label, lambda rows, now: _flat(bind_context(call, now), rows, now, label))


def unbatch() -> Operation:
    """Take batches apart into rows, the inverse of `batch`.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source([1, 2, 3]), data.map(lambda n: {"n": n}), data.batch(2), data.unbatch()))[2]
    {'n': array(3, dtype=int32)}
    """
    return Operation("unbatch()", lambda rows, now: _flat(unstack, rows, now, "unbatch()"), calls=False)


def enumerate(start: int = 0) -> Operation:
    """Pair each item with its number in the epoch, from `start` on: `(number, item)`.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("ab"), data.enumerate()))
    [(0, 'a'), (1, 'b')]
    """
    if not hasattr(start, "__index__"):
        raise TypeError(f"the start of enumerate is an integer; got {start!r}")
    label = f"enumerate({start})" if start else "enumerate()"
    numbers = lambda rows, now: builtins.enumerate(rows, start + now.start)  # noqa: E731
    return Operation(label, numbers, size=lambda size: size, seek=same, calls=False)


def tap(f: Callable[..., Any]) -> Operation:
    """Call `f(item)` for its effect, as `map` would, and pass the item on as it is.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> list(pipe(data.source("ab"), data.tap(print)))
    a
    b
    ['a', 'b']
    """
    label, call = f"tap({name_of(f)})", with_context(f, offers=CONTEXT, what="tap function")

    def bind(now: Pass) -> Callable[[Any], Any]:
        look = bind_context(call, now)
        return lambda row: (look(row), row)[1]

    return each(label, bind)


def each(label: str, bind: Callable[[Pass], Callable[[Any], Any]], *, calls: bool = True) -> Operation:
    """Make an operation of what makes of a pass a function of one item; see `Operation` for `calls`.

    >>> from mlx_fp import data
    >>> list(each("double", lambda now: lambda n: 2 * n)(data.source([1, 2])))
    [2, 4]
    """
    on_rows = lambda rows, now: mapped(bind(now), rows, now, label)  # noqa: E731
    return Operation(label, on_rows, size=lambda size: size, seek=same, calls=calls)


def bind_context(call: WithContext, now: Pass, seed: int | None = None) -> Callable[[Any], Any]:
    """Return a function of an item, which gives the call what it uses of the item's place.

    >>> from mlx_fp.core._signature import with_context
    >>> f = bind_context(with_context(lambda row, index: (row, index), offers=CONTEXT), Pass(0, "train", start=5))
    >>> f("a"), f("b")
    (('a', 5), ('b', 6))
    """
    if not call.context:
        return call.fn
    fixed = {name: getattr(now, name) for name in call.context if name in ("epoch", "kind")}
    if len(fixed) == len(call.context):
        return partial(call.fn, **fixed)
    indices, uses = count(now.start), call.context

    def placed(row: Any) -> Any:
        index = next(indices)
        moving = {"index": index} if "index" in uses else {}
        if "key" in uses:
            moving["key"] = row_key(seed or 0, now.epoch, index)
        return call.fn(row, **fixed, **moving)

    return placed


def _kept(f: Callable[[Any], Any], rows: Iterator[Any], now: Pass, label: str) -> Iterator[Any]:
    index = now.start
    try:
        for row in rows:
            if f(row):
                yield row
            index += 1
    except Exception as error:
        blame(error, label, now, index)
        raise


def _flat(f: Callable[[Any], Iterable[Any]], rows: Iterator[Any], now: Pass, label: str) -> Iterator[Any]:
    index = now.start
    try:
        for row in rows:
            made = f(row)
            refuse_table(label, made, iterated=True)
            try:
                yield from made
            finally:
                close(made)
            index += 1
    except Exception as error:
        blame(error, label, now, index)
        raise
