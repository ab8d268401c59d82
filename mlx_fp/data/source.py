"""Where rows come from: a sequence, columns, or a function that makes an iterator per epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from ..call import name_of, named
from ..errors import located
from .collate import collate, is_array
from .dataset import Dataset, Source
from .place import Pass, close

__all__ = ["arrays", "as_dataset", "source", "stream"]


def source(sequence: Any) -> Dataset:
    """Return the dataset of the rows of anything with `__len__` and `__getitem__`.

    Raise TypeError for a one-shot iterator, a mapping, or anything else without both.

    >>> list(source(["a", "b"]))
    ['a', 'b']
    >>> source(letter for letter in "ab")
    Traceback (most recent call last):
    TypeError: source cannot take a generator, read once and gone: write stream(lambda: a fresh one)
    """
    _refuse_iterator("source", sequence)
    kind = type(sequence).__name__
    if isinstance(sequence, Mapping):
        raise TypeError(f"source takes rows, not a {kind}: for a dict of columns write arrays(**columns)")
    if not (hasattr(sequence, "__len__") and hasattr(sequence, "__getitem__")):
        raise TypeError(
            f"source takes what has __len__ and __getitem__, not a {kind}: write stream(lambda: a fresh one)"
        )
    size = len(sequence)
    return Dataset(Source(f"source({kind} of {size})", size, _picking(sequence.__getitem__)))


def arrays(*columns: Any, **by_name: Any) -> Dataset:
    """Return the dataset of columns of equal length: items are dicts of named columns, tuples of others.

    Columns are numpy arrays (memory-mapped ones too) or mlx arrays, `(n, ...)`, and come out as what they
    are: a row has `(...)`, a batch `(b, ...)`, made by one gather per column. A batch that was not shuffled
    is a slice, in numpy a view: do not write to it. Raise ValueError where the lengths differ.

    >>> import mlx.core as mx
    >>> digits = arrays(x=mx.zeros((5, 8, 8)), y=mx.arange(5))
    >>> digits
    arrays(x=(5, 8, 8), y=(5,))
    >>> [row["y"].item() for row in digits]
    [0, 1, 2, 3, 4]
    >>> arrays(mx.zeros((5, 2)), mx.zeros(4))
    Traceback (most recent call last):
    ValueError: the columns of arrays have different lengths: column 0 has 5, column 1 has 4
    """
    if bool(columns) == bool(by_name):
        raise TypeError("arrays takes columns, all by position or all by name")
    given: Mapping[Any, Any] = by_name or dict[Any, Any](enumerate(columns))
    takes = {key: _take(f"column {key!r}", column) for key, column in given.items()}
    sizes = {key: len(column) for key, column in given.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"column {key!r} has {size}" for key, size in sizes.items())
        raise ValueError(f"the columns of arrays have different lengths: {told}")
    shapes = ", ".join(f"{key}={column.shape}" if by_name else f"{column.shape}" for key, column in given.items())

    def pick(at: int | slice | memoryview) -> Any:
        if isinstance(at, memoryview):
            items = {key: take(at) for key, take in takes.items()}
        else:
            items = {key: column[at] for key, column in given.items()}
        return items if by_name else tuple(items.values())

    return Dataset(Source(f"arrays({shapes})", next(iter(sizes.values())), _picking(pick, pick)))


def stream(factory: Callable[..., Any]) -> Dataset:
    """Return the dataset of what `factory` gives, called once an epoch with what it names of `epoch`, `kind`.

    Its iterator is closed when the reader is. Raise TypeError when `factory` is no function or requires more.

    >>> from mlx_fp.data import Cursor
    >>> list(stream(lambda epoch: iter([epoch, epoch + 1])).open(Cursor(epoch=5)))
    [5, 6]
    """
    _refuse_iterator("stream", factory)
    if not callable(factory):
        raise TypeError(f"stream takes a function that returns an iterable; got {type(factory).__name__}")
    label = f"stream({name_of(factory)})"
    call = named(factory, offers=("epoch", "kind"), values=0, what="stream factory")
    return Dataset(Source(label, rows=lambda now: _streamed(call, now, label)))


def as_dataset(data: Any) -> Dataset:
    """Return a Dataset as it is, and anything with `__len__` and `__getitem__` as `source(data)`.

    Raise TypeError for anything else, a one-shot iterator above all, with the remedy.

    >>> as_dataset([(1, 2), (3, 4)])
    source(list of 2)
    """
    return data if isinstance(data, Dataset) else source(data)


def _refuse_iterator(what: str, given: Any) -> None:
    if isinstance(given, Iterator):
        kind = type(given).__name__
        raise TypeError(f"{what} cannot take a {kind}, read once and gone: write stream(lambda: a fresh one)")


def _picking(row: Callable[[int], Any], gather: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Return how to read an index by `row`, indices by `gather` if there is one, and groups by collating."""

    def pick(at: Any) -> Any:
        if isinstance(at, int):
            return row(at)
        if gather is not None and isinstance(at, range):
            return gather(slice(at.start, at.stop, at.step))
        if gather is not None and isinstance(at, memoryview):
            return gather(at)
        return collate([pick(i) for i in at])

    return pick


def _take(what: str, column: Any) -> Callable[[memoryview], Any]:
    """Return how to gather from a column, numpy's or mlx's."""
    _refuse_iterator("arrays", column)
    if not is_array(column, "numpy", "ndarray") and not is_array(column, "mlx.core", "array"):
        raise TypeError(f"{what} of arrays must be a numpy or an mlx array; got {type(column).__name__}")
    if not column.ndim:
        raise ValueError(f"{what} of arrays has no rows: its shape is ()")
    if is_array(column, "numpy", "ndarray"):
        import numpy as np

        return lambda at: column.take(np.asarray(at), axis=0)
    from ..door import mx

    return lambda at: mx.take(column, mx.array(cast(Any, at)), axis=0)


def _streamed(call: Callable[..., Any], now: Pass, label: str) -> Iterator[Any]:
    index = 0
    rows: Iterator[Any] = iter(())
    try:
        rows = iter(call(epoch=now.epoch, kind=now.kind))
        for row in rows:
            yield row
            index += 1
    except Exception:
        with located(operation=label, epoch=now.epoch, index=index):
            raise
    finally:
        close(rows)
