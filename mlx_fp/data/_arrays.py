"""Sources of columns: numpy or MLX arrays of equal length, from which a batch is one gather per column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from ..core._errors import refuse_mask
from ..core._types import Array
from ._dataset import Dataset, Source
from ._evaluated import evaluate_arrays
from ._item_copies import copy_item
from ._source import refuse_iterator
from ._stack import is_array, stack
from ._types import Column, Item, ItemFunction, Key
from ._view import View

__all__ = ["arrays"]

Gather = Callable[[Item], Column]
"""A function that returns the rows of a column at the indices in a memoryview of int64."""


def arrays(*columns: Column, **by_name: Column) -> Dataset:
    """Return the dataset of the rows of columns of equal length.

    A row has shape `(...)` in each column, and a batch `(b, ...)`, which one gather per column makes. numpy arrays
    give numpy arrays, and MLX arrays give MLX arrays. Without a shuffle a batch is a slice. For numpy such a slice is
    a read-only view, but functions of `map` and similar operations get copies.

    Args:
        columns: numpy or MLX arrays `(n, ...)`; items are then tuples. Memory-mapped arrays stay on disk.
        by_name: The same by name; items are then dicts.

    Raises:
        TypeError: A column is not a numpy or MLX array, or is a masked array; or columns are given both by position
            and by name, or there is none.
        ValueError: Columns have different lengths, or a column has no rows.

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
    by_key = dict[Key, Column](by_name.items() if by_name else enumerate(columns))
    gathers = [_gather_function(f"column {key!r}", column) for key, column in by_key.items()]
    sizes = {key: len(column) for key, column in by_key.items()}
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"column {key!r} has {size}" for key, size in sizes.items())
        raise ValueError(f"the columns of arrays have different lengths: {lengths}")
    shapes = ", ".join(f"{key}={column.shape}" if by_name else f"{column.shape}" for key, column in by_key.items())

    assemble = _dict_maker(tuple(by_name)) if by_name else tuple
    shared, copied = _column_views(list(by_key.values()), gathers, assemble)
    label = f"arrays({shapes})"
    return Dataset(Source(label, len(shared), view=lambda epoch_read: copied if epoch_read.copies else shared))


def _dict_maker(names: tuple[str, ...]) -> ItemFunction:
    return lambda items: dict(zip(names, items, strict=True))


def _column_views(columns: list[Column], gathers: Sequence[Gather], assemble: ItemFunction) -> tuple[View, View]:
    """Return a view of rows that share the memory of numpy columns and are read-only, and a view of copies."""

    def picker(finish: ItemFunction) -> ItemFunction:
        def pick(index: Item) -> Item:
            if isinstance(index, memoryview):
                return assemble([gather(index) for gather in gathers])
            if isinstance(index, range):
                index = slice(index.start, index.stop, index.step)
            elif not isinstance(index, int):
                return stack([pick(i) for i in index])
            return assemble([finish(column[index]) for column in columns])

        return pick

    order = range(len(columns[0]))
    return View(order, picker(_set_read_only)), View(order, picker(copy_item))


def _set_read_only(part: Column) -> Column:
    if is_array(part, "numpy", "ndarray"):
        part.setflags(write=False)
    return part


def _gather_function(name: str, column: Column) -> Gather:
    """Check a column, and return the function that gathers rows from it, as arrays of the same library."""
    refuse_iterator("arrays", column)
    if not is_array(column, "numpy", "ndarray") and not is_array(column, "mlx.core", "array"):
        remedy = "give its .to_numpy()" if hasattr(column, "to_numpy") else "numpy.asarray makes one of a list"
        raise TypeError(f"{name} of arrays must be a numpy or an mlx array; got {type(column).__name__}: {remedy}")
    refuse_mask(f"{name} of arrays", column)
    if not column.ndim:
        raise ValueError(f"{name} of arrays has no rows: its shape is ()")
    return _numpy_gather(column.take) if is_array(column, "numpy", "ndarray") else _mlx_gather(column)


def _numpy_gather(take: Callable[..., Column]) -> Gather:
    return lambda indices: take(indices, axis=0)  # a partial with a keyword argument would be slower


def _mlx_gather(column: Array) -> Gather:
    """Return the gather of an MLX array; on a CPU it uses a numpy view of the array, which saves a kernel per batch."""
    from ..core._mlx import mx

    evaluate_arrays(column)
    same_in_numpy = column.dtype not in (mx.bfloat16, mx.float64)  # numpy has no bfloat16; mx.array rounds float64
    if not (same_in_numpy and mx.default_device() == mx.Device(mx.cpu) and find_spec("numpy")):
        return lambda indices: mx.take(column, mx.array(indices), axis=0)
    import numpy as np

    take, array = np.asarray(column).take, mx.array
    return lambda indices: array(take(indices, axis=0))
