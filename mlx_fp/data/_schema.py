"""Check batches against what they should be."""

from __future__ import annotations

from typing import Any

from ..core._errors import unknown
from ._dataset import Operation
from ._rows import each
from ._stack import describe

__all__ = ["schema"]

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)
"""The names of dtypes of MLX's and numpy's."""


def schema(*columns: Any, **by_name: Any) -> Operation:
    """Check each batch, and pass it on as it is: columns by name of a dict, by position of a tuple, alone of an array.

    A column is a dtype, as `mx.float32`, `np.float32` or `"float32"`; a rank, as `2`; a shape, with `None` for any
    length, as `(None, 64)`; or a pair of a dtype and one of the others. ValueError names the column, what was expected
    and what came; its note says which batch it was.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> rows = data.arrays(x=mx.zeros((4, 3)), y=mx.zeros(4))
    >>> list(pipe(rows, data.batch(2), data.schema(x=(mx.float32, (None, 3)), y=("int32", 1))))
    Traceback (most recent call last):
    ValueError: schema: y must be int32 of rank 1; got float32 (2,)
    at operation=schema(x, y), split=train, epoch=0, index=0
    """
    if bool(columns) == bool(by_name):
        raise TypeError("schema takes columns, all by position or all by name")
    given: dict[Any, Any] = by_name or dict[Any, Any](enumerate(columns))
    expected = {key: _column(f"column {key!r}", spec) for key, spec in given.items()}
    label = "schema(" + (", ".join(by_name) or f"{len(columns)} columns") + ")"

    def check(batch: Any) -> Any:
        for key, value in _columns(batch, expected, bool(by_name)).items():
            _check(str(key), value, *expected[key])
        return batch

    return each(label, lambda now: check, calls=False)


def _column(what: str, spec: Any) -> tuple[str | None, int | tuple[int | None, ...] | None]:
    """Read a spec as the name of a dtype and a rank or shape, either None where anything goes."""
    pair = isinstance(spec, tuple) and len(spec) == 2 and not _is_shape(spec)
    dtype, shape = spec if pair else (None, spec) if _is_shape(spec) else (spec, None)
    if (shape is not None and not _is_shape(shape)) or (dtype is not None and _dtype(dtype) not in DTYPES):
        hint = f"; {unknown('dtype', dtype, DTYPES)}" if isinstance(dtype, str) and dtype not in DTYPES else ""
        raise TypeError(f"schema: {what} is a dtype, a rank, a shape, or a dtype with one of them; got {spec!r}{hint}")
    return None if dtype is None else _dtype(dtype), shape


def _is_shape(spec: Any) -> bool:
    if isinstance(spec, tuple):
        return all(length is None or type(length) is int for length in spec)
    return type(spec) is int


def _dtype(dtype: Any) -> str:
    """Return the name of a dtype of MLX's or numpy's, empty for what is none."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
    return name.removeprefix("mlx.core.").removesuffix("_")


def _columns(batch: Any, expected: dict[Any, Any], by_name: bool) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    if by_name:
        values = batch if isinstance(batch, dict) else {}
    else:
        values = dict(enumerate(batch if isinstance(batch, (tuple, list)) else (batch,)))
    if values.keys() != expected.keys():
        names = ", ".join(map(str, expected)) if by_name else f"{len(expected)} columns"
        raise ValueError(f"schema: the batch must have {names}; got {describe(batch)}")
    return values


def _check(name: str, value: Any, dtype: str | None, shape: Any) -> None:
    if not hasattr(value, "shape"):
        raise ValueError(f"schema: {name} must be {_told(dtype, shape)}; got {describe(value)}")
    came = tuple(value.shape)
    fits = shape is None or (len(came) == shape if isinstance(shape, int) else _alike(came, shape))
    if not fits or (dtype is not None and _dtype(value.dtype) != dtype):
        raise ValueError(f"schema: {name} must be {_told(dtype, shape)}; got {describe(value)}")


def _alike(came: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(came) == len(shape) and all(b is None or a == b for a, b in zip(came, shape, strict=True))


def _told(dtype: str | None, shape: Any) -> str:
    size = "" if shape is None else f" of rank {shape}" if isinstance(shape, int) else f" {shape}"
    return (dtype or "an array") + size
