"""Check the dtypes and the shapes of batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core._errors import unknown
from ._call_text import call_text
from ._dataset import Operation
from ._rows import row_operation
from ._stack import describe_batch
from ._types import Column, Item, Key

__all__ = ["schema"]

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)
"""The names of the dtypes of MLX and numpy."""

Shape = int | tuple[int | None, ...] | None
"""A rank, a shape with None for a dimension of any length, or None for any shape."""


def schema(*columns: object, **by_name: object) -> Operation:
    """Check each batch, and pass it on unchanged.

    Args:
        columns: Expected columns of a tuple by position; one column stands for a batch that is an array. A column is:

            - a dtype: `mx.float32`, `np.float32` or `"float32"`;
            - a rank, for example `2`;
            - a shape with `None` for a dimension of any length, for example `(None, 64)`;
            - a pair of a dtype and a rank or shape.
        by_name: Expected columns of a dict by key. A batch must have these columns and no others.

    Raises:
        TypeError: Columns are given both by position and by name, or there is none, or a column is of another kind.
        ValueError: When the data are read: a batch differs. The message names the column, the expected and the given
            dtype and shape; the note names the batch.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> rows = data.arrays(x=mx.zeros((4, 3)), y=mx.zeros(4))
    >>> try:
    ...     list(pipe(rows, data.batch(2), data.schema(x=(mx.float32, (None, 3)), y="int32")))
    ... except ValueError as error:
    ...     print(error)
    schema: y must be int32; got float32 (2,)
    """
    if bool(columns) == bool(by_name):
        raise TypeError("schema takes columns, all by position or all by name")
    specs: Iterable[tuple[Key, object]] = by_name.items() if by_name else enumerate(columns)
    expected = {key: _parse_column(f"column {key!r}", spec) for key, spec in specs}
    texts = [_column_text(*column) for column in expected.values()]
    label = call_text("schema", **dict(zip(by_name, texts, strict=True))) if by_name else call_text("schema", *texts)

    def check(batch: Item) -> Item:
        for key, value in _batch_columns(batch, expected, bool(by_name)).items():
            _check_column(str(key), value, *expected[key])
        return batch

    return row_operation(label, lambda epoch_read: check, calls=False)


def _parse_column(name: str, spec: object) -> tuple[str | None, Shape]:
    """Return the name of a dtype and a rank or shape; each is None where anything is allowed."""
    if isinstance(spec, tuple) and len(spec) == 2 and not _is_shape(spec):
        dtype, shape = spec
    else:
        dtype, shape = (None, spec) if _is_shape(spec) else (spec, None)
    if (shape is not None and not _is_shape(shape)) or (dtype is not None and _dtype_name(dtype) not in DTYPES):
        hint = f"; {unknown('dtype', dtype, DTYPES)}" if isinstance(dtype, str) and dtype not in DTYPES else ""
        raise TypeError(f"schema: {name} is a dtype, a rank, a shape, or a dtype with one of them; got {spec!r}{hint}")
    return None if dtype is None else _dtype_name(dtype), shape


def _column_text(dtype: str | None, shape: Shape) -> object:
    return dtype if shape is None else shape if dtype is None else (dtype, shape)


def _is_shape(spec: object) -> bool:
    if isinstance(spec, tuple):
        return all(length is None or type(length) is int for length in spec)
    return type(spec) is int


def _dtype_name(dtype: object) -> str:
    """Return the name of a dtype of MLX or numpy, an empty text for other objects."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
    return name.removeprefix("mlx.core.").removesuffix("_")


def _batch_columns(batch: Item, expected: Mapping[Key, object], by_name: bool) -> dict[Key, Column]:
    """Return the columns of a batch by key or position; ValueError unless they are the expected ones."""
    columns: dict[Key, Column] = {}
    if by_name:
        columns = batch if isinstance(batch, dict) else {}
    else:
        columns = dict(enumerate(batch if isinstance(batch, (tuple, list)) else (batch,)))
    if columns.keys() != expected.keys():
        names = ", ".join(map(str, expected)) if by_name else f"{len(expected)} columns"
        raise ValueError(f"schema: the batch must have {names}; got {describe_batch(batch)}")
    return columns


def _check_column(name: str, value: Column, dtype: str | None, shape: Shape) -> None:
    if (
        hasattr(value, "shape")
        and _fits(tuple(value.shape), shape)
        and (dtype is None or dtype == _dtype_name(value.dtype))
    ):
        return
    size = "" if shape is None else f" of rank {shape}" if isinstance(shape, int) else f" {shape}"
    raise ValueError(f"schema: {name} must be {dtype or 'an array'}{size}; got {describe_batch(value)}")


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    if expected is None:
        return True
    if isinstance(expected, int):
        return len(shape) == expected
    return len(shape) == len(expected) and all(b is None or a == b for a, b in zip(shape, expected, strict=True))
