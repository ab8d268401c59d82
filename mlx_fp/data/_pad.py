"""Rows of different lengths, padded to few shapes, each of which costs a trace."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ..core._errors import unknown
from ._cursor import natural
from ._dataset import Operation
from ._fill import joined
from ._rows import each
from ._stack import alike, describe, is_numbers, stack

__all__ = ["pad"]

Fill = float | Mapping[str | int, float]
"""A number, or numbers by column."""


def pad(
    *,
    multiple_of: int = 1,
    to: Sequence[int] | None = None,
    value: Fill = 0,
    side: str = "right",
    lengths: str | None = None,
) -> Operation:
    """Make a batch of each list of rows, as `bucket` and `batch(n, stack=list)` give, padded to one length.

    Every array in a row, or list of numbers, is filled up along its first axis: to the longest of its batch, rounded
    up, or to the next of some lengths. Arrays keep their dtype, and lists of bools or of integers stay such.

    Args:
        multiple_of: What the length is rounded up to a multiple of.
        to: The lengths there are, in place of a multiple.
        value: What to fill with. A dict has a number for each column that it names, by key of a dict or by position of
            a tuple, however deep; the columns that it does not name are filled with 0.
        side: `"right"` fills up behind the values, `"left"` before them.
        lengths: The key at which rows that are dicts get the length of their first array, int32 `(b,)`, to mask by.

    Raises:
        TypeError: When it is built, for a value that is no number, or `to` that are no lengths.
        ValueError: When it is built, for both of `multiple_of` and `to`, or an unknown side. When it is read, for rows
            longer than the last of `to`, dicts whose keys differ, a column of `value` that the rows lack, and a value
            that a column cannot hold: 0.5 among integers, -1 among unsigned ones, 1e10 in float16; floats round.

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
    target, label = _target(multiple_of, to)
    if side not in ("right", "left"):
        raise ValueError(unknown("side of pad", str(side), ["right", "left"]))
    if not isinstance(lengths, (str, type(None))):
        raise TypeError(f"lengths of pad is the key of a column, as in lengths='n'; got {lengths!r}")
    filling = _Filling(target, side == "left")
    fills = _fills(value)

    def padded(rows: Any) -> Any:
        if not isinstance(rows, list):
            raise TypeError(f"pad takes lists of rows, as batch(n, stack=list) gives; got {describe(rows)}")
        if isinstance(fills, Mapping):
            _check_columns(fills, rows[0])
        if lengths is not None:
            rows = [{**_dict(row), lengths: next(_lengths(row), 0)} for row in rows]
        return _padded(rows, filling, fills, "row")

    return each(f"pad({label}, side='left')" if filling.left else f"pad({label})", lambda now: padded, calls=False)


@dataclass(frozen=True, slots=True)
class _Filling:
    """How to fill up: to which length, of the longest, and on which side."""

    target: Callable[[int], int]
    left: bool


def _target(multiple_of: int, to: Sequence[int] | None) -> tuple[Callable[[int], int], str]:
    """Return the function from the longest length to that of the batch, and its option in words."""
    step = natural(multiple_of, "the multiple_of of pad", least=1)
    if to is None:
        return lambda longest: -(-longest // step) * step, f"multiple_of={step}"
    if not hasattr(to, "__iter__"):
        raise TypeError(f"to of pad are the lengths there are, as in to=(8, 16); got {to!r}: write to=({to!r},)")
    ends = tuple(sorted(natural(end, "a length of pad(to=…)", least=1) for end in to))
    if step > 1 or not ends:
        raise ValueError(f"pad takes multiple_of, or lengths as to=…, one of the two; got {multiple_of} and {ends}")

    def next_of(longest: int) -> int:
        if longest > ends[-1]:
            raise ValueError(f"a row has length {longest}, longer than the last of pad(to={ends}): cut or filter it")
        return ends[bisect_left(ends, longest)]

    return next_of, f"to={ends}"


def _fills(value: Any) -> Fill:
    """Return the fill, checked."""
    if not isinstance(value, Mapping):
        if not isinstance(value, Real):
            raise TypeError(f"the value of pad is a number, or a dict of one for each column; got {value!r}")
        return value  # type: ignore[return-value]  # a Real does for a float
    for key, one in value.items():
        if not isinstance(key, (str, int)) or not isinstance(one, Real):
            wanted = "a number for each column, as in {'labels': -100}"
            raise TypeError(f"the dict of pad(value=…) has {wanted}; got {one!r} for {key!r}")
    return dict(value)


def _check_columns(fills: Mapping[Any, float], row: Any) -> None:
    there = list(_columns(row))
    for key in fills:
        if key not in there:
            raise ValueError(unknown("column of pad(value=…)", str(key), list(map(str, there))))


def _columns(row: Any) -> Iterator[str | int]:
    """Yield the keys and positions of a row, however deep."""
    for key, part in _parts(row):
        yield key
        yield from _columns(part)


def _parts(row: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(row, dict):
        yield from row.items()
    elif isinstance(row, tuple):
        yield from enumerate(row)


def _dict(row: Any) -> dict[Any, Any]:
    if not isinstance(row, dict):
        raise TypeError(f"pad(lengths=…) adds a key to rows that are dicts; got {describe(row)}")
    return row


def _lengths(row: Any) -> Iterator[int]:
    """Yield the length of each array in a row, however deep."""
    if _is_sequence(row):
        yield len(row)
    for _, part in _parts(row):
        yield from _lengths(part)


def _is_sequence(value: Any) -> bool:
    """Whether a value has a first axis to pad: an array, or a list of numbers."""
    return is_numbers(value) or bool(getattr(value, "ndim", 0))


def _padded(values: list[Any], how: _Filling, fill: Fill, at: str) -> Any:
    first = values[0]
    if _is_sequence(first):
        return joined(values, how.target(max(map(len, values))), how.left, _number(fill), at)
    if isinstance(first, dict):
        alike(values, at, "type", lambda value: isinstance(value, dict))
        alike(values, at, "keys", dict.keys)
        return {key: _padded([value[key] for value in values], how, _of(fill, key), f"{at}[{key!r}]") for key in first}
    if isinstance(first, tuple):
        parts = enumerate(zip(*values, strict=True))
        columns = [_padded(list(part), how, _of(fill, i), f"{at}[{i}]") for i, part in parts]
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    return stack(values)


def _of(fill: Fill, key: Any) -> Fill:
    """Return the fill of a column: the one given for it, or one for each column in it."""
    return fill.get(key, fill) if isinstance(fill, Mapping) else fill


def _number(fill: Fill) -> float:
    return 0 if isinstance(fill, Mapping) else fill
