"""Where rows come from: a sequence, columns, or a function that makes an iterator per epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from ..core._errors import refuse_mask
from ..core._signature import name_of, with_context
from ._cursor import Pass, blame, close, replayed
from ._dataset import Dataset, Source
from ._lazy import evaluated
from ._owned import owned, unshared
from ._stack import is_array, stack
from ._tables import refuse_table
from ._view import View

__all__ = ["arrays", "as_dataset", "source", "stream"]


def source(sequence: Any) -> Dataset:
    """Return the dataset of the rows of anything with `__len__` and `__getitem__`.

    An mlx array, and those in a list or tuple of rows, are evaluated here. Raise TypeError for a one-shot iterator, a
    mapping, anything else without both, and a table of pandas', polars' or pyarrow's, which a number does not index by
    row; the message says how to get its rows.

    >>> list(source(["a", "b"]))
    ['a', 'b']
    >>> source(letter for letter in "ab")
    Traceback (most recent call last):
    TypeError: source cannot take a generator, read once and gone: write stream(lambda: a fresh one)
    """
    _refuse_iterator("source", sequence)
    refuse_table("source", sequence)
    kind = type(sequence).__name__
    if isinstance(sequence, Mapping):
        raise TypeError(f"source takes rows, not a {kind}: for a dict of columns write arrays(**columns)")
    if not (hasattr(sequence, "__len__") and hasattr(sequence, "__getitem__")):
        raise TypeError(
            f"source takes what has __len__ and __getitem__, not a {kind}: write stream(lambda: a fresh one)"
        )
    size = len(evaluated(sequence))  # what is lazy cannot be read in another thread
    shared, own = _views(sequence, size)
    return Dataset(Source(f"source({kind} of {size})", size, view=lambda now: own if now.owned else shared))


def arrays(*columns: Any, **by_name: Any) -> Dataset:
    """Return the dataset of columns of equal length: items are dicts of named columns, tuples of others.

    Columns are numpy arrays (memory-mapped ones too) or mlx arrays, `(n, ...)`, and come out as what they
    are: a row has `(...)`, a batch `(b, ...)`, made by one gather per column. A batch that was not shuffled
    is a slice, in numpy a view that cannot be written to; functions of `map` and the like get copies. Raise
    ValueError where the lengths differ, TypeError for anything else, numpy's masked arrays among it.

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
    gathers = [_gather(f"column {key!r}", column) for key, column in given.items()]
    sizes = {key: len(column) for key, column in given.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"column {key!r} has {size}" for key, size in sizes.items())
        raise ValueError(f"the columns of arrays have different lengths: {told}")
    shapes = ", ".join(f"{key}={column.shape}" if by_name else f"{column.shape}" for key, column in given.items())

    together = _naming(tuple(by_name)) if by_name else tuple
    shared, own = _column_views(list(given.values()), gathers, together)
    return Dataset(Source(f"arrays({shapes})", len(shared), view=lambda now: own if now.owned else shared))


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
    call = with_context(factory, offers=("epoch", "kind"), values=0, what="stream factory")
    return Dataset(Source(label, rows=lambda now: replayed(_streamed(call, now, label), now, label)))


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


def _naming(names: tuple[str, ...]) -> Callable[[list[Any]], Any]:
    return lambda items: dict(zip(names, items, strict=True))


def _views(sequence: Any, size: int) -> tuple[View, View]:
    """Return the rows of a sequence as they are, and as copies."""
    row, pick = sequence.__getitem__, _picking(sequence)

    def own_row(at: int) -> Any:
        return owned(row(at))

    def own(at: Any) -> Any:
        return own_row(at) if isinstance(at, int) else unshared(pick(at))

    return View(range(size), pick, row), View(range(size), own, own_row)


def _picking(sequence: Any) -> Callable[[Any], Any]:
    """Return how to read an index of a sequence, or of a group of them a batch: at once where it knows how."""
    row, many = sequence.__getitem__, getattr(sequence, "__getitems__", None)  # Hugging Face's and torch's name

    def pick(at: Any) -> Any:
        if isinstance(at, int):
            return row(at)
        if many is not None and isinstance(at, (memoryview, range)):
            return stack(many(list(at)))
        return stack([pick(i) for i in at])

    return pick


def _column_views(
    columns: list[Any], gathers: list[Callable[[memoryview], Any]], together: Callable[[list[Any]], Any]
) -> tuple[View, View]:
    """Return the rows of columns as what numpy has views of, not to be written to, and as copies."""

    def picking(part: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def pick(at: Any) -> Any:
            if isinstance(at, memoryview):
                return together([gather(at) for gather in gathers])
            if isinstance(at, range):
                at = slice(at.start, at.stop, at.step)
            elif not isinstance(at, int):
                return stack([pick(i) for i in at])
            return together([part(column[at]) for column in columns])

        return pick

    order = range(len(columns[0]))
    return View(order, picking(_read_only)), View(order, picking(owned))


def _read_only(part: Any) -> Any:
    if is_array(part, "numpy", "ndarray"):
        part.setflags(write=False)
    return part


def _gather(what: str, column: Any) -> Callable[[memoryview], Any]:
    """Return how to gather from a column, numpy's or mlx's, what it is."""
    _refuse_iterator("arrays", column)
    if not is_array(column, "numpy", "ndarray") and not is_array(column, "mlx.core", "array"):
        how = "give its .to_numpy()" if hasattr(column, "to_numpy") else "numpy.asarray makes one of a list"
        raise TypeError(f"{what} of arrays must be a numpy or an mlx array; got {type(column).__name__}: {how}")
    refuse_mask(f"{what} of arrays", column)
    if not column.ndim:
        raise ValueError(f"{what} of arrays has no rows: its shape is ()")
    return _numpy_gather(column.take) if is_array(column, "numpy", "ndarray") else _mlx_gather(column)


def _numpy_gather(take: Callable[..., Any]) -> Callable[[memoryview], Any]:
    return lambda at: take(at, axis=0)  # a partial with a keyword would be slower


def _mlx_gather(column: Any) -> Callable[[memoryview], Any]:
    """Gather from an mlx array: on a CPU through numpy's view of it, which spares a kernel per batch."""
    from ..core._mlx import mx

    evaluated(column)
    kept = column.dtype not in (mx.bfloat16, mx.float64)  # numpy or mlx would change it
    if not (kept and mx.default_device() == mx.Device(mx.cpu) and find_spec("numpy")):
        return lambda at: mx.take(column, mx.array(at), axis=0)  # type: ignore[arg-type]
    import numpy as np

    take, array = np.asarray(column).take, mx.array
    return lambda at: array(take(at, axis=0))  # type: ignore[call-overload]


def _iterator(given: Any, label: str) -> Iterator[Any]:
    if not hasattr(given, "__iter__"):
        raise TypeError(f"the factory of {label} returns an iterable; it gave {given!r}")
    if isinstance(given, Mapping):
        raise TypeError(f"the factory of {label} returns rows, not a {type(given).__name__}, which gives its keys")
    refuse_table(f"the factory of {label}", given, iterated=True)
    return iter(given)


def _streamed(call: Callable[..., Any], now: Pass, label: str) -> Iterator[Any]:
    index = 0
    rows: Iterator[Any] = iter(())
    try:
        rows = _iterator(call(epoch=now.epoch, kind=now.kind), label)
        for row in rows:
            yield owned(row) if now.owned else row
            index += 1
    except Exception as error:
        blame(error, label, now, index)
        raise
    finally:
        close(rows)
