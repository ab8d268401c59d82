"""Store long lists of metadata as bytes in a file, so that the manifest stays short for any length.

Rows are plain values as JSON, compressed by zlib in chunks. An `Encoder` keeps the chunks of a growing list, so that it
encodes each chunk once. For example, a checkpoint with 1,000 rows encodes only the last chunk of up to 32 rows again. A
list of numbers is stored as float64.
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
from typing import TypeVar

from ..core._tensors import Tensor
from ..core._types import Array, Tree
from ._manifest import Packed, describe_tree, restore_tree

__all__ = ["UNPACKED", "Encoder", "Floats", "Rows"]

T = TypeVar("T")

_CHUNK_LENGTH, _FAST_LEVEL, _BEST_LEVEL = 32, 1, 6
"""The number of values in a full chunk, and the levels of zlib for a chunk that still grows and for a full chunk."""

_FRAME_BYTES = 4
"""The number of bytes that hold the length of a chunk."""

_MAX_RATIO = 32
"""The maximum ratio of the JSON of a chunk to its compressed bytes, so that a small file cannot fill the memory."""


@dataclass(frozen=True, slots=True)
class Rows(Packed):
    """Hold a list of plain values as chunks of compressed JSON. Iteration yields the values.

    >>> list(Encoder()("pairs", ((1, 2.5), (3, None))))
    [(1, 2.5), (3, None)]
    """

    chunks: tuple[bytes, ...] = ()
    """The chunks. Each begins with its length."""
    partial: tuple[int, hashlib._Hash] = field(default_factory=lambda: (0, hashlib.sha256()), compare=False, repr=False)
    """A number of first chunks, and the unfinished digest of these chunks."""

    kind = "rows"

    @property
    def tensor(self) -> Tensor:
        """Return the bytes of the list."""
        content, digest = bytearray().join(self.chunks), _chunks_digest(*self.partial, self.chunks)
        return Tensor("U8", (len(content),), memoryview(content), digest.hexdigest())

    def __iter__(self) -> Iterator[Tree]:
        for chunk in self.chunks:
            yield from _unpack_chunk(chunk[_FRAME_BYTES:])


@dataclass(frozen=True, slots=True)
class Floats(Packed):
    """Hold a list of numbers as float64 in the byte order of this machine. Iteration yields the numbers.

    >>> list(Floats(array("d", [0.5, 2.0]).tobytes()))
    [0.5, 2.0]
    """

    data: bytes = b""

    kind = "floats"

    @property
    def tensor(self) -> Tensor:
        """Return the bytes of the list."""
        return Tensor("U8", (len(self.data),), memoryview(bytearray(_little_endian(self.data))))

    def __iter__(self) -> Iterator[float]:
        return iter(array("d", self.data))


class Encoder:
    """Encode growing lists. A chunk is encoded again only if one of its values is another object than at the last call.

    >>> encoder, rows = Encoder(), tuple({"epoch": i} for i in range(100))
    >>> first, second = encoder("rows", rows), encoder("rows", (*rows, {"epoch": 100}))
    >>> first.chunks[0] is second.chunks[0], list(second)[-1]
    (True, {'epoch': 100})
    """

    def __init__(self) -> None:
        self._encoded: dict[str, tuple[tuple[object, ...], Rows]] = {}

    def __call__(self, name: str, values: tuple[T, ...], plain: Callable[[T], object] = lambda value: value) -> Rows:
        """Encode `plain(value)` for each value. The name identifies the list in later calls."""
        before, encoded = self._encoded.get(name, ((), Rows()))

        def chunk(start: int) -> bytes:
            old, new = before[start : start + _CHUNK_LENGTH], values[start : start + _CHUNK_LENGTH]
            same = len(old) == len(new) and all(map(is_, old, new))
            return encoded.chunks[start // _CHUNK_LENGTH] if same else _pack_chunk(list(map(plain, new)))

        unchanged = [*map(is_, before, values), False].index(False) // _CHUNK_LENGTH  # chunks before the first change
        changed = range(unchanged * _CHUNK_LENGTH, len(values), _CHUNK_LENGTH)
        chunks = (*encoded.chunks[:unchanged], *map(chunk, changed))
        partial = encoded.partial if encoded.partial[0] <= unchanged else Rows().partial
        full = len(values) // _CHUNK_LENGTH
        rows = Rows(chunks, (full, _chunks_digest(*partial, chunks[:full])))
        self._encoded[name] = values, rows
        return rows


def _chunks_digest(count: int, partial: hashlib._Hash, chunks: tuple[bytes, ...]) -> hashlib._Hash:
    """Return the digest of chunks; `partial` is the digest of the first `count` chunks."""
    digest = partial.copy()
    for chunk in chunks[count:]:
        digest.update(chunk)
    return digest


def _pack_chunk(values: list[object]) -> bytes:
    """Compress values. A value with an array raises TypeError, because a chunk has no place for arrays."""
    arrays: dict[str, Array | Packed] = {}
    text = json.dumps([describe_tree(value, arrays) for value in values], allow_nan=False).encode()
    if arrays:
        raise TypeError(f"a row holds an array at {next(iter(arrays))!r}; rows hold numbers, texts, lists and dicts")
    packed = zlib.compress(text, _BEST_LEVEL if len(values) == _CHUNK_LENGTH else _FAST_LEVEL)
    packed = packed if len(text) <= _MAX_RATIO * len(packed) else zlib.compress(text, 0)
    return len(packed).to_bytes(_FRAME_BYTES, "little") + packed


def _unpack_chunk(chunk: bytes) -> list[Tree]:
    """Return the values of a chunk. An invalid chunk raises ValueError."""
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(chunk, _MAX_RATIO * len(chunk))
    except zlib.error as error:
        raise ValueError(f"its rows are not valid compressed data: {error}") from None
    if not reader.eof or reader.unused_data:
        raise ValueError("its rows are truncated, or take far more memory than the file")
    descriptions = json.loads(text)
    if not isinstance(descriptions, list):
        raise ValueError("its rows are not a list")
    return [restore_tree(description, _no_array) for description in descriptions]


def _no_array(name: str) -> Array:
    raise ValueError(f"its rows refer to the array {name!r}")


def _unpack_rows(content: memoryview) -> list[Tree]:
    values, start = list[Tree](), 0
    while start < len(content):
        end = start + _FRAME_BYTES + int.from_bytes(content[start : start + _FRAME_BYTES], "little")
        if end > len(content):
            raise ValueError("its rows are truncated")
        values += _unpack_chunk(bytes(content[start + _FRAME_BYTES : end]))
        start = end
    return values


def _unpack_floats(content: memoryview) -> list[float]:
    return array("d", _little_endian(bytes(content))).tolist()


def _little_endian(data: bytes) -> bytes:
    """Convert float64 bytes between the order of this machine and the little-endian order of files."""
    if sys.byteorder == "little":
        return data
    numbers = array("d", data)
    numbers.byteswap()
    return numbers.tobytes()


UNPACKED: Mapping[str, Callable[[memoryview], list[Tree]]] = {"rows": _unpack_rows, "floats": _unpack_floats}
"""The functions that decode the bytes of a list, by kind."""
