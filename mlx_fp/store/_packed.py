"""Long lists among metadata: bytes of their own in a file, so that its manifest stays short whatever their length.

Rows are descriptions of plain values as JSON, packed by zlib in chunks. An `Encoder` keeps the chunks of a list that
grows, so that each is encoded once. Numbers are the bytes of their float64.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from ..core._types import Array
from ._manifest import Packed, rebuild, take_down
from ._tensors import Tensor

__all__ = ["UNPACKED", "Encoder", "Floats", "Rows"]

_CHUNK, _FAST, _SMALL = 32, 1, 6
"""Values of a full chunk; levels of zlib for a chunk that is encoded again as it grows, and for a full one."""

_FRAME = 4
"""Bytes of the length of a chunk."""

_MOST = 32
"""How many times the bytes of a chunk its JSON may have, so that a small file never fills the memory."""


@dataclass(frozen=True, slots=True)
class Rows(Packed):
    """A list of plain values as chunks of packed JSON; it iterates over the values.

    >>> list(Encoder()("pairs", ((1, 2.5), (3, None))))
    [(1, 2.5), (3, None)]
    """

    chunks: tuple[bytes, ...] = ()
    """Each chunk with its length before it."""
    begun: tuple[int, Any] = field(default_factory=lambda: (0, hashlib.sha256()), compare=False, repr=False)
    """The number of the first chunks whose digest is begun, and that digest."""

    kind = "rows"

    @property
    def tensor(self) -> Tensor:
        """Return the bytes of the list."""
        content, found = bytearray().join(self.chunks), _digest(*self.begun, self.chunks)
        return Tensor("U8", (len(content),), memoryview(content), found.hexdigest())

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.chunks:
            yield from _values(chunk[_FRAME:])


@dataclass(frozen=True, slots=True)
class Floats(Packed):
    """A list of numbers as the bytes of float64, in the order of this machine; it iterates over the numbers.

    >>> list(Floats(array("d", [0.5, 2.0]).tobytes()))
    [0.5, 2.0]
    """

    data: bytes = b""

    kind = "floats"

    @property
    def tensor(self) -> Tensor:
        """Return the bytes of the list."""
        return Tensor("U8", (len(self.data),), memoryview(bytearray(_little(self.data))))

    def __iter__(self) -> Iterator[float]:
        return iter(array("d", self.data))


class Encoder:
    """Encodes lists that grow: a chunk that holds the very objects that it held last time is not encoded again.

    >>> encoder, rows = Encoder(), tuple({"epoch": i} for i in range(100))
    >>> one, other = encoder("rows", rows), encoder("rows", (*rows, {"epoch": 100}))
    >>> one.chunks[0] is other.chunks[0], list(other)[-1]
    (True, {'epoch': 100})
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Any, ...], Rows]] = {}

    def __call__(self, name: str, values: tuple[Any, ...], plain: Callable[[Any], Any] = lambda value: value) -> Rows:
        """Encode what `plain` makes of values; `name` is that of the list, by which the encoder knows it again."""
        before, known = self._known.get(name, ((), Rows()))

        def chunk(start: int) -> bytes:
            old, new = (each[start : start + _CHUNK] for each in (before, values))
            same = len(old) == len(new) and all(map(is_, old, new))
            return known.chunks[start // _CHUNK] if same else _chunk(list(map(plain, new)))

        kept = [*map(is_, before, values), False].index(False) // _CHUNK  # chunks before the first change
        chunks = (*known.chunks[:kept], *map(chunk, range(kept * _CHUNK, len(values), _CHUNK)))
        begun, full = known.begun if known.begun[0] <= kept else Rows().begun, len(values) // _CHUNK
        rows = Rows(chunks, (full, _digest(*begun, chunks[:full])))
        self._known[name] = values, rows
        return rows


def _digest(count: int, begun: Any, chunks: tuple[bytes, ...]) -> Any:
    """Return the digest of chunks, that of the first ones being begun."""
    found = begun.copy()
    for chunk in chunks[count:]:
        found.update(chunk)
    return found


def _chunk(values: list[Any]) -> bytes:
    """Pack values. TypeError for one that holds an array: the reader has no place to take it from."""
    arrays: dict[str, Any] = {}
    text = json.dumps([take_down(value, arrays) for value in values], allow_nan=False).encode()
    if arrays:
        raise TypeError(f"a row holds an array at {next(iter(arrays))!r}; rows hold numbers, texts, lists and dicts")
    packed = zlib.compress(text, _SMALL if len(values) == _CHUNK else _FAST)
    packed = packed if len(text) <= _MOST * len(packed) else zlib.compress(text, 0)
    return len(packed).to_bytes(_FRAME, "little") + packed


def _values(chunk: bytes) -> list[Any]:
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(chunk, _MOST * len(chunk))
    except zlib.error as error:
        raise ValueError(f"its rows are not packed as they should be: {error}") from None
    if not reader.eof or reader.unused_data:
        raise ValueError("its rows are cut, or take far more memory than the file")
    described = json.loads(text)
    if not isinstance(described, list):
        raise ValueError("its rows are no list")
    return [rebuild(one, _no_array) for one in described]


def _no_array(name: str) -> Array:
    raise ValueError(f"its rows name the array {name!r}")


def _unpacked_rows(content: memoryview) -> list[Any]:
    values, at = list[Any](), 0
    while at < len(content):
        end = at + _FRAME + int.from_bytes(content[at : at + _FRAME], "little")
        if end > len(content):
            raise ValueError("its rows are cut")
        values += _values(bytes(content[at + _FRAME : end]))
        at = end
    return values


def _unpacked_floats(content: memoryview) -> list[float]:
    return array("d", _little(bytes(content))).tolist()


def _little(data: bytes) -> bytes:
    """Return the bytes of float64 from this machine's order to the order of files, or back."""
    if sys.byteorder == "little":
        return data
    numbers = array("d", data)
    numbers.byteswap()
    return numbers.tobytes()


UNPACKED: Mapping[str, Callable[[memoryview], list[Any]]] = {"rows": _unpacked_rows, "floats": _unpacked_floats}
"""What makes of the bytes of each kind of list the list."""
