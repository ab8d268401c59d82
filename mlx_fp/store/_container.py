"""The safetensors container, written and read by the letter: a header of JSON, then the bytes of each tensor in turn.

Format: https://huggingface.co/docs/safetensors. The header is written by hand, because a checkpoint is written straight
from the arrays' memory, and read by hand, because MLX's reader trusts shapes and offsets that it should not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import SEEK_END
from math import prod
from typing import Any, BinaryIO

from ._tensors import WIDTHS, Tensor

__all__ = ["LONGEST_HEADER", "Slot", "header", "metadata_of", "unpack"]

LONGEST_HEADER = 100_000_000
"""Bytes; the limit of safetensors itself."""

Slot = tuple[str, tuple[int, ...], int]
"""The dtype, the shape, and the number of bytes of a tensor."""


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return what stands before the bytes of the tensors: the length of the header, and the header.

    >>> header({}, {"a": "b"})[8:]
    b'{"__metadata__":{"a":"b"}}      '
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        end = at + len(tensor.data)
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def unpack(file: BinaryIO) -> tuple[bytes, dict[str, Slot], dict[str, str]]:
    """Read a header: its bytes, what tensors follow in turn, and the metadata. ValueError, saying what is wrong.

    >>> from io import BytesIO
    >>> content = header({"x": Tensor("U8", (2,), memoryview(b"ab"))}, {"a": "b"}) + b"ab"
    >>> unpack(BytesIO(content))[1:]
    ({'x': ('U8', (2,), 2)}, {'a': 'b'})
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    if size < 8:
        raise ValueError("it is shorter than a header")
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, LONGEST_HEADER):
        raise ValueError(f"its header should have {length} bytes, more than there are")
    text = _decoded(file.read(length))
    entries = _entries(text)
    metadata = _metadata(entries)
    entries.pop("__metadata__", None)
    head = length.to_bytes(8, "little") + text.encode()
    return head, dict(_slots(entries, size - 8 - length)), metadata


def _entries(text: str) -> dict[str, Any]:
    if not text.startswith("{"):
        raise ValueError("its header is no JSON object")
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    except ValueError as error:  # no JSON, a key twice
        raise ValueError(f"its header is no JSON: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")
    return entries


def _decoded(text: bytes) -> str:
    """Decode what `header` wrote, and nothing that would take more memory as a text than as bytes."""
    if not text.isascii():
        raise ValueError("its header is no JSON in ASCII, as mlx_fp writes it")
    return text.decode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def metadata_of(text: bytes) -> dict[str, str]:
    """Return the metadata in a header. ValueError for what is none.

    >>> metadata_of(b'{"__metadata__": {"a": "b"}}')
    {'a': 'b'}
    """
    return _metadata(_entries(_decoded(text)))


def _metadata(entries: dict[str, Any]) -> dict[str, str]:
    metadata = entries.get("__metadata__") or {}  # MLX writes null where there is none
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts by name")
    return metadata


def _slots(entries: dict[str, Any], payload: int) -> Iterator[tuple[str, Slot]]:
    """Yield each tensor's place; together they must cover the payload, without a gap or an overlap."""
    at = 0
    for name, entry in sorted(entries.items(), key=_start):
        start, end, dtype, shape = _checked(name, entry)
        if start != at or end > payload:
            raise ValueError(f"the bytes of tensor {name!r} are not where they should be")
        if prod(shape) * WIDTHS[dtype] != end - start:
            raise ValueError(f"tensor {name!r} has {end - start} bytes, not those of {dtype} {shape}")
        yield name, (dtype, shape, end - start)
        at = end
    if at != payload:
        raise ValueError(f"{payload - at} bytes belong to no tensor")


def _start(item: tuple[str, Any]) -> tuple[int, int]:
    start, end, _, _ = _checked(*item)
    return start, end


def _checked(name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} has no dtype, shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in WIDTHS:
        raise ValueError(f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {name!r} has a shape or offsets that are none")
    return offsets[0], offsets[1], dtype, tuple(shape)


def _are_counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
