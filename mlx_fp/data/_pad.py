"""Pad rows of different lengths to few shapes, because a compiled step is traced once for each shape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import cast

from ..core._errors import unknown
from ._bucket_list import BucketList, bucket_length
from ._call_text import call_text
from ._cursor import non_negative_int
from ._dataset import Operation
from ._padding import stack_padded
from ._rows import row_operation
from ._stack import check_same, describe_batch, is_numbers, stack
from ._types import Item, Key

__all__ = ["pad"]

Fill = float | Mapping[Key, float]
"""A number, or a number for each column."""


def pad(
    *,
    multiple_of: int = 1,
    to: Sequence[int] | None = None,
    value: Fill = 0,
    side: str = "right",
    lengths: str | None = None,
) -> Operation:
    """Make a batch of each list of rows, padded to one length.

    `bucket` and `batch(n, stack=list)` give lists of rows. Every array or list of numbers in a row is padded along its
    first axis. The length is that of the longest row, rounded up to a multiple or to the next of some lengths. For
    example, rows of 3 and 5 numbers become a batch `(2, 8)` with `multiple_of=8`. A list of `bucket` is padded to the
    boundary of its bucket instead, rounded up to a multiple, unless lengths are given as `to`. Arrays keep their dtype.
    Lists of bools or of integers become arrays of bools or of integers.

    Args:
        multiple_of: The length is rounded up to a multiple of this integer; 1 by default.
        to: The possible lengths, instead of `multiple_of`. For example, `(8, 16)`.
        value: Fill value, 0 by default. A dict has a number for each column that it names, by the key in a dict or by
            the position in a tuple, at any depth. The other columns are filled with 0.
        side: `"right"`, the default, pads after the values; `"left"` pads before them.
        lengths: Key for the length of the first array of each row, int32 `(b,)`, from which a mask can be made. Rows
            must be dicts. None, the default, adds no key.

    Raises:
        TypeError: `value` is not a number, or `to` does not hold lengths.
        ValueError: `multiple_of` and `to` are both given, or `side` is unknown. When the data are read: a row is longer
            than the last length of `to`; dicts have different keys; rows have no column that `value` names; or a
            column cannot hold the value. For example, integers cannot hold 0.5, unsigned integers cannot hold -1, and
            float16 cannot hold 1e10. Floats may round the value.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> lists = pipe(data.source([{"x": [1, 2, 3]}, {"x": [4]}]), data.batch(2, stack=list))
    >>> next(iter(pipe(lists, data.pad(multiple_of=4, lengths="n"))))["n"]
    array([3, 1], dtype=int32)
    >>> next(iter(pipe(lists, data.pad(to=(4, 8)))))["x"].tolist()
    [[1, 2, 3, 0], [4, 0, 0, 0]]
    >>> next(iter(pipe(lists, data.pad(side="left", value={"x": -1}))))["x"].tolist()
    [[1, 2, 3], [-1, -1, 4]]
    """
    target_length, options = _target_length(multiple_of, to)
    if side not in ("right", "left"):
        raise ValueError(unknown("side of pad", str(side), ["right", "left"]))
    if not isinstance(lengths, (str, type(None))):
        raise TypeError(f"lengths of pad is the key of a column, as in lengths='n'; got {lengths!r}")
    padding = _Padding(target_length, side == "left")
    fills = _check_fill(value)
    options |= {"value": fills or None, "side": "left" if padding.left else None, "lengths": lengths}

    def padding_of(rows: list[Item]) -> _Padding:
        if to is not None or not isinstance(rows, BucketList):
            return padding
        return replace(padding, target_length=lambda longest: target_length(bucket_length(rows, longest)))

    def pad_rows(rows: Item) -> Item:
        if not isinstance(rows, list):
            raise TypeError(f"pad takes lists of rows, as batch(n, stack=list) gives; got {describe_batch(rows)}")
        if isinstance(fills, Mapping):
            _check_columns(fills, rows[0])
        padded = rows
        if lengths is not None:
            padded = [{**_check_dict(row), lengths: next(_lengths(row), 0)} for row in rows]
        return _pad_values(padded, padding_of(rows), fills, "row")

    return row_operation(call_text("pad", **options), lambda epoch_read: pad_rows, calls=False)


@dataclass(frozen=True, slots=True)
class _Padding:
    """The function from the longest length to the padded length, and whether to pad on the left."""

    target_length: Callable[[int], int]
    left: bool


def _target_length(multiple_of: int, to: Sequence[int] | None) -> tuple[Callable[[int], int], dict[str, object]]:
    """Return the function from the longest length to the padded length, and the option that it comes from."""
    step = non_negative_int(multiple_of, "the multiple_of of pad", minimum=1)
    if to is None:
        return lambda longest: -(-longest // step) * step, {"multiple_of": step if step > 1 else None}
    if not hasattr(to, "__iter__"):
        raise TypeError(f"to of pad holds the possible lengths, as in to=(8, 16); got {to!r}: write to=({to!r},)")
    ends = tuple(sorted(non_negative_int(end, "a length of pad(to=…)", minimum=1) for end in to))
    if step > 1 or not ends:
        raise ValueError(f"pad takes multiple_of, or lengths as to=…, one of the two; got {multiple_of} and {ends}")

    def next_length(longest: int) -> int:
        if longest > ends[-1]:
            raise ValueError(f"a row has length {longest}, longer than the last of pad(to={ends}): cut or filter it")
        return ends[bisect_left(ends, longest)]

    return next_length, {"to": ends}


def _check_fill(value: object) -> Fill:
    """Return the fill; TypeError unless it is a number or a dict of numbers."""
    if not isinstance(value, Mapping):
        if not isinstance(value, Real):
            raise TypeError(f"the value of pad is a number, or a dict of one for each column; got {value!r}")
        return cast(float, value)
    for key, number in value.items():
        if not isinstance(key, (str, int)) or not isinstance(number, Real):
            expected = "a number for each column, as in {'labels': -100}"
            raise TypeError(f"the dict of pad(value=…) has {expected}; got {number!r} for {key!r}")
    return dict(value)


def _check_columns(fills: Mapping[Key, float], row: Item) -> None:
    """Raise ValueError for a fill of a column that a row does not have."""
    columns = list(_column_keys(row))
    for key in fills:
        if key not in columns:
            raise ValueError(unknown("column of pad(value=…)", str(key), list(map(str, columns))))


def _column_keys(row: Item) -> Iterator[Key]:
    """Yield the keys and positions in a row, at any depth."""
    for key, column in _columns(row):
        yield key
        yield from _column_keys(column)


def _columns(row: Item) -> Iterator[tuple[Key, Item]]:
    """Yield the columns of a dict by key, or of a tuple by position."""
    if isinstance(row, dict):
        yield from row.items()
    elif isinstance(row, tuple):
        yield from enumerate(row)


def _check_dict(row: Item) -> dict[Key, Item]:
    if not isinstance(row, dict):
        raise TypeError(f"pad(lengths=…) adds a key to rows that are dicts; got {describe_batch(row)}")
    return row


def _lengths(row: Item) -> Iterator[int]:
    """Yield the length of each array in a row, at any depth."""
    if _has_length(row):
        yield len(row)
    for _, column in _columns(row):
        yield from _lengths(column)


def _has_length(value: object) -> bool:
    """Whether a value has a first axis to pad: an array, or a list of numbers."""
    return is_numbers(value) or bool(getattr(value, "ndim", 0))


def _pad_values(values: list[Item], padding: _Padding, fill: Fill, path: str) -> Item:
    """Return one batch of rows, or of one column of rows; `path` names the column in messages."""
    first = values[0]
    if _has_length(first):
        number = 0 if isinstance(fill, Mapping) else fill
        return stack_padded(values, padding.target_length(max(map(len, values))), padding.left, number, path)
    if isinstance(first, dict):
        check_same(values, path, "type", lambda value: isinstance(value, dict))
        check_same(values, path, "keys", dict.keys)
        return {
            key: _pad_values([value[key] for value in values], padding, _fill_of(fill, key), f"{path}[{key!r}]")
            for key in first
        }
    if isinstance(first, tuple):
        columns = enumerate(zip(*values, strict=True))
        padded = [_pad_values(list(column), padding, _fill_of(fill, i), f"{path}[{i}]") for i, column in columns]
        return type(first)(*padded) if hasattr(first, "_fields") else tuple(padded)
    return stack(values)


def _fill_of(fill: Fill, key: Key) -> Fill:
    """Return the fill of a column: its number, or the dict with the numbers of the columns in it."""
    return fill.get(key, fill) if isinstance(fill, Mapping) else fill
