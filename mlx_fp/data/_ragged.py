"""Rows of different lengths: sorted into buckets, and padded to few shapes, each of which costs a trace."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from math import inf
from typing import Any

from ..core._errors import refuse_mask
from ..core._signature import name_of, named
from ._cursor import CONTEXT, Pass, blame, natural
from ._dataset import Operation
from ._rows import bind_context, each
from ._stack import alike, describe, is_array, stack

__all__ = ["bucket", "pad"]


def bucket(
    by: Callable[..., Any], *, boundaries: Sequence[float], batch_size: int, drop_last: bool = False
) -> Operation:
    """Join rows of like length into lists of `batch_size` rows; `pad` makes batches of them.

    `by(row)` is a row's length; it gets context as for `map`. `boundaries` rise; a bucket holds lengths up to and
    with its boundary, the last one those beyond. A list is handed out when it is full, and at the end the rest, unless
    `drop_last`. Raise ValueError for boundaries that do not rise.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> words = data.source(["a", "three", "be", "to", "seven"])
    >>> list(pipe(words, data.bucket(len, boundaries=(2,), batch_size=2)))
    [['a', 'be'], ['three', 'seven'], ['to']]
    """
    ends, size = tuple(boundaries), natural(batch_size, "the batch_size of bucket", least=1)
    if not ends or any(b <= a for a, b in pairwise(ends)):
        raise ValueError(f"the boundaries of bucket must rise; got {ends}")
    label = f"bucket({name_of(by)}, boundaries={ends}, batch_size={size})"
    call = named(by, offers=CONTEXT, what="bucket function")

    def lists(rows: Iterator[Any], now: Pass) -> Iterator[list[Any]]:
        return _buckets(bind_context(call, now), rows, ends, size, drop_last, now, label)

    return Operation(label, lists)


def pad(
    *, multiple_of: int = 1, to: Sequence[int] | None = None, value: float = 0, lengths: str | None = None
) -> Operation:
    """Make a batch of each list of rows, as `bucket` and `batch(n, stack=list)` give, padded to one length.

    Every array in a row, or list of numbers, is filled up with `value` along its first axis: to the longest of its
    batch, rounded up to a multiple, or to the next of the lengths `to`; arrays keep their dtype, and lists of bools or
    of integers stay such. Rows that are dicts can get their first array's own length as `lengths`, int32 `(b,)`, to
    mask by. Raise ValueError for rows longer than the last of `to`, for dicts whose keys differ, and for a `value` that
    the rows cannot hold: 0.5 among integers, -1 among unsigned ones, 1e10 in float16; floats round as usual.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> rows = data.source([{"x": [1, 2, 3]}, {"x": [4]}])
    >>> next(iter(pipe(rows, data.batch(2, stack=list), data.pad(multiple_of=4, lengths="n"))))["n"]
    array([3, 1], dtype=int32)
    >>> next(iter(pipe(rows, data.batch(2, stack=list), data.pad(to=(4, 8)))))["x"].tolist()
    [[1, 2, 3, 0], [4, 0, 0, 0]]
    """
    step = natural(multiple_of, "the multiple_of of pad", least=1)
    if to is not None and (step > 1 or not len(to)):
        raise ValueError(
            f"pad takes multiple_of, or lengths as to=…, one of the two; got {multiple_of} and {tuple(to)}"
        )
    ends = None if to is None else tuple(sorted(natural(end, "a length of pad(to=…)", least=1) for end in to))
    label = f"pad(to={ends})" if ends else f"pad(multiple_of={step})"

    def target(longest: int) -> int:
        if not ends:
            return -(-longest // step) * step
        if longest > ends[-1]:
            raise ValueError(f"a row has length {longest}, longer than the last of pad(to={ends}): cut or filter it")
        return ends[bisect_left(ends, longest)]

    def padded(rows: Any) -> Any:
        if not isinstance(rows, list):
            raise TypeError(f"pad takes lists of rows, as batch(n, stack=list) gives; got {describe(rows)}")
        if lengths is not None:
            rows = [{**_dict(row), lengths: next(_lengths(row), 0)} for row in rows]
        return _padded(rows, target, value, "row")

    return each(label, lambda now: padded)


def _buckets(
    by: Callable[[Any], Any],
    rows: Iterator[Any],
    ends: tuple[float, ...],
    size: int,
    drop_last: bool,
    now: Pass,
    label: str,
) -> Iterator[list[Any]]:
    held: list[list[Any]] = [[] for _ in (*ends, None)]
    for index, row in enumerate(rows, now.start):
        try:
            at = bisect_left(ends, by(row))
        except Exception as error:
            blame(error, label, now, index)
            raise
        held[at].append(row)
        if len(held[at]) == size:
            yield held[at]
            held[at] = []
    if not drop_last:
        yield from filter(None, held)


def _dict(row: Any) -> dict[Any, Any]:
    if not isinstance(row, dict):
        raise TypeError(f"pad(lengths=…) adds a key to rows that are dicts; got {describe(row)}")
    return row


def _lengths(row: Any) -> Iterator[int]:
    """Yield the length of each array in a row, however deep."""
    if _is_sequence(row):
        yield len(row)
    elif isinstance(row, (dict, tuple)):
        for part in row.values() if isinstance(row, dict) else row:
            yield from _lengths(part)


def _is_sequence(value: Any) -> bool:
    """Whether a value has a first axis to pad: an array, or a list of numbers."""
    if isinstance(value, list):
        return all(isinstance(number, (int, float)) for number in value)
    return bool(getattr(value, "ndim", 0))


def _padded(values: list[Any], target: Callable[[int], int], fill: float, at: str) -> Any:
    first = values[0]
    if _is_sequence(first):
        return _joined(values, target(max(map(len, values))), fill, at)
    if isinstance(first, dict):
        alike(values, at, "type", lambda value: isinstance(value, dict))
        alike(values, at, "keys", dict.keys)
        return {key: _padded([value[key] for value in values], target, fill, f"{at}[{key!r}]") for key in first}
    if isinstance(first, tuple):
        parts = enumerate(zip(*values, strict=True))
        columns = [_padded(list(part), target, fill, f"{at}[{i}]") for i, part in parts]
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    return stack(values)


def _joined(values: list[Any], size: int, fill: float, at: str) -> Any:
    """Stack arrays and lists of numbers, each filled up to a length."""
    for value in values:
        refuse_mask(at, value)
    kind = _kind(values, fill)
    for dtype in {_dtype(own) for own in {kind if isinstance(value, list) else value.dtype for value in values}}:
        if not _holds(dtype, fill):
            told = f"{fill}, which {str(dtype).removeprefix('mlx.core.')} does not hold"
            raise ValueError(f"pad cannot fill {at} up with {told}: give another value, or rows of another dtype")
    return stack([_filled(value, size, kind(fill) if isinstance(value, list) else fill) for value in values])


def _kind(values: list[Any], fill: float) -> type:
    """Return what the numbers in the lists among the values are together; lists without any are as the fill is."""
    found = set(map(type, chain.from_iterable(value for value in values if isinstance(value, list)))) or {type(fill)}
    return next((kind for kind in (bool, int) if all(issubclass(one, kind) for one in found)), float)


def _dtype(own: Any) -> Any:
    """Return the dtype of mlx's for an array's own, or for a kind of numbers; None where mlx has none."""
    from ..core._mlx import mx

    if isinstance(own, mx.Dtype):
        return own
    name = getattr(own, "name", None) or {bool: "bool", int: "int64", float: "float32"}.get(own, "")
    return getattr(mx, "bool_" if name == "bool" else name, None)


def _holds(dtype: Any, fill: float) -> bool:
    """Whether a dtype has a number: integers the whole ones in their range, floats all that do not become infinite."""
    from ..core._mlx import mx

    if dtype is None:
        return True
    if dtype == mx.bool_:
        return fill in (0, 1)
    if mx.issubdtype(dtype, mx.integer):
        return fill % 1 == 0 and mx.iinfo(dtype).min <= fill <= mx.iinfo(dtype).max
    return not (mx.issubdtype(dtype, mx.floating) and mx.finfo(dtype).max < abs(fill) < inf)


def _filled(value: Any, size: int, fill: float) -> Any:
    """Fill an array or a list of numbers up to a length along its first axis."""
    from ..core._mlx import mx

    if isinstance(value, list):
        return mx.array(value + [fill] * (size - len(value)))
    widths = [(0, size - len(value))] + [(0, 0)] * (value.ndim - 1)
    if is_array(value, "mlx.core", "array"):
        return mx.pad(value, widths, constant_values=fill)
    import numpy as np

    return np.pad(value, widths, constant_values=fill)
