"""Rows as bytes and back, exactly, for `cache(path)`. A row is containers of numbers and arrays.

The *layout* of a row is a JSON value. It says which containers the row consists of, and the library, the dtype and
the number of axes of each array. All rows of a file have one layout. The bytes of a row are a CRC-32, then the
integers that differ between rows (the shape of each array, and the type of Python's numbers), then the elements.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from math import prod
from struct import calcsize, pack, unpack_from
from typing import Any

from ..core._errors import refuse_mask
from ._stack import is_array
from ._types import Column, Item

__all__ = ["Layout", "decode_row", "describe_layout", "encode_row"]

Layout = Any
"""A JSON value: a list of the name of a container or of a kind of array, and of the layouts or properties in it."""

_NUMBER_TYPES: tuple[tuple[type, str], ...] = ((bool, "b"), (int, "q"), (float, "d"))
"""The types of Python's numbers, and the code of each in the module `array`; a row holds the position in this table."""


def encode_row(row: Item) -> tuple[Layout, bytes]:
    """Return the layout and the bytes of a row.

    Raises TypeError for a value that is no number, no array of numbers and no dict, list or tuple of these.

    >>> encode_row({"tokens": [5, 6]})[0]
    ['dict', ['tokens', ['numbers', 1]]]
    >>> encode_row({"text": "one"})
    Traceback (most recent call last):
    TypeError: row['text'] is a str: a cache on disk holds numbers, arrays of numbers, and dicts, lists ...
    """
    integers: list[int] = []
    parts: list[bytes | memoryview] = []
    layout = _encode(row, "row", integers, parts)
    content = b"".join([pack(f"<{len(integers)}q", *integers), *parts])
    return layout, pack("<I", zlib.crc32(content)) + content


def decode_row(layout: Layout, content: bytes) -> Item:
    """Return the row of a layout and of bytes; ValueError where the checksum differs.

    >>> layout, content = encode_row((1.5, [[1, 2], [3, 4]], True))
    >>> decode_row(layout, content)
    (1.5, [[1, 2], [3, 4]], True)
    """
    if len(content) < 4 or zlib.crc32(memoryview(content)[4:]) != unpack_from("<I", content)[0]:
        raise ValueError("its checksum differs")
    count = _integer_count(layout)
    integers = iter(unpack_from(f"<{count}q", content, 4))
    return _decode(layout, integers, _Elements(content, 4 + calcsize(f"<{count}q")))


def describe_layout(layout: Layout) -> str:
    """Return the text of a layout.

    >>> describe_layout(["dict", ["tokens", ["numpy", "<i4", 1]], ["n", ["numbers", 0]]])
    '{tokens: numpy <i4 with 1 axes, n: number}'
    """
    kind, *parts = layout
    if kind == "dict":
        return "{" + ", ".join(f"{key}: {describe_layout(part)}" for key, part in parts) + "}"
    if kind in ("list", "tuple"):
        return f"{kind} of ({', '.join(map(describe_layout, parts))})"
    if kind == "numbers":
        return f"list of numbers with {parts[0]} axes" if parts[0] else "number"
    return f"{kind} {parts[0]} with {parts[1]} axes"


class _Elements:
    """The elements of a row, which are taken from its bytes in order."""

    def __init__(self, content: bytes, position: int) -> None:
        self.content, self.position = content, position

    def take(self, size: int) -> bytearray:
        """Return the next bytes as new memory, which may be changed in place."""
        start, self.position = self.position, self.position + size
        return bytearray(self.content[start : self.position])


def _encode(value: Item, path: str, integers: list[int], parts: list[bytes | memoryview]) -> Layout:
    """Append the integers and the elements of a value, and return its layout; `path` names the value in messages."""
    kind = type(value)
    if kind is dict:
        return ["dict", *([_key(key, path), _encode(value[key], f"{path}[{key!r}]", integers, parts)] for key in value)]
    if kind is tuple or (kind is list and not _holds_numbers(value)):
        return [kind.__name__, *(_encode(item, f"{path}[{i}]", integers, parts) for i, item in enumerate(value))]
    if kind is list or isinstance(value, (bool, int, float)):
        return _encode_numbers(value, path, integers, parts)
    if is_array(value, "mlx.core", "array"):
        from ..core._tensors import as_tensor

        tensor = as_tensor(value)
        integers += tensor.shape
        parts.append(tensor.data)
        return ["mlx", tensor.dtype, len(tensor.shape)]
    if is_array(value, "numpy", "ndarray") or is_array(value, "numpy", "generic"):
        refuse_mask(path, value)
        if value.dtype.kind in "biufc":
            integers += value.shape
            parts.append(value.tobytes())
            return ["numpy", value.dtype.str, value.ndim]
        raise _refused(path, f"an array of dtype {value.dtype}")
    raise _refused(path, f"a {kind.__name__}")


def _refused(path: str, kind: str) -> TypeError:
    return TypeError(
        f"{path} is {kind}: a cache on disk holds numbers, arrays of numbers, and dicts, lists and tuples of these: "
        "leave other values out with data.map, or cache in memory with cache()"
    )


def _key(key: object, path: str) -> object:
    if isinstance(key, str):
        return key
    raise TypeError(f"{path} has the key {key!r}: a cache on disk holds dicts whose keys are texts")


def _holds_numbers(value: list[Item]) -> bool:
    """Whether a list is a list of numbers at any depth, which counts as an array."""
    first: object = value
    while isinstance(first, list) and first:
        first = first[0]
    return isinstance(first, (bool, int, float, list))


def _encode_numbers(value: Item, path: str, integers: list[int], parts: list[bytes | memoryview]) -> Layout:
    """Encode a number, or a list of numbers: bools, integers, or floats where one of the numbers is a float."""
    shape: list[int] = []
    numbers = value if isinstance(value, list) else [value]
    if isinstance(value, list):
        shape.append(len(value))
        while numbers and isinstance(numbers[0], list):
            shape.append(len(numbers[0]))
            if any(not isinstance(inner, list) or len(inner) != shape[-1] for inner in numbers):
                raise TypeError(f"{path} is a list of lists of different lengths: make it a tuple of lists")
            numbers = [number for inner in numbers for number in inner]
    types = set(map(type, numbers))
    if not types <= {bool, int, float}:
        odd = next(kind for kind in types if kind not in (bool, int, float))
        raise _refused(path, f"a list with a {odd.__name__}" if shape else f"a {odd.__name__}")
    if bool in types and len(types) > 1:
        raise TypeError(f"{path} is a list of bools and other numbers: make all of them of one type")
    position = 2 if float in types else 0 if bool in types else 1
    try:
        elements = array(_NUMBER_TYPES[position][1], numbers)
    except OverflowError:
        raise ValueError(f"{path} has an integer that does not fit into int64") from None
    integers += [position, *shape]
    parts.append(elements.tobytes())
    return ["numbers", len(shape)]


def _integer_count(layout: Layout) -> int:
    """Return the number of the integers that a row of a layout begins with."""
    kind, *parts = layout
    if kind == "dict":
        return sum(_integer_count(part) for _, part in parts)
    if kind in ("list", "tuple"):
        return sum(map(_integer_count, parts))
    return int(parts[0] + 1) if kind == "numbers" else int(parts[1])


def _decode(layout: Layout, integers: Iterator[int], elements: _Elements) -> Item:
    kind, *parts = layout
    if kind == "dict":
        return {key: _decode(part, integers, elements) for key, part in parts}
    if kind in ("list", "tuple"):
        items = [_decode(part, integers, elements) for part in parts]
        return items if kind == "list" else tuple(items)
    if kind == "numbers":
        return _decode_numbers(next(integers), [next(integers) for _ in range(parts[0])], elements)
    return _decode_array(kind, parts[0], tuple(next(integers) for _ in range(parts[1])), elements)


def _decode_numbers(position: int, shape: Sequence[int], elements: _Elements) -> Item:
    number_type, code = _NUMBER_TYPES[position]
    flat = array(code, bytes(elements.take(prod(shape) * array(code).itemsize)))
    numbers: Any = list(map(bool, flat)) if number_type is bool else flat.tolist()
    for axis in range(len(shape) - 1, 0, -1):
        length = shape[axis]
        numbers = [numbers[i * length : (i + 1) * length] for i in range(prod(shape[:axis]))]
    return numbers if shape else numbers[0]


def _decode_array(library: str, dtype: str, shape: tuple[int, ...], elements: _Elements) -> Column:
    if library == "mlx":
        from ..core._tensors import WIDTHS, Tensor, as_array

        return as_array(Tensor(dtype, shape, memoryview(elements.take(prod(shape) * WIDTHS[dtype]))))
    import numpy as np

    kind = np.dtype(dtype)
    column: Any = np.ndarray(shape, kind, buffer=elements.take(prod(shape) * kind.itemsize))
    return column if shape else column[()]
