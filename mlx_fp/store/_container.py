"""The safetensors container: the package `safetensors` writes and reads it, after a strict check of the header.

Format: https://huggingface.co/docs/safetensors. The check refuses headers that the package would take: a key that
stands twice, metadata that are no texts, dtypes that MLX does not have, more tensors than can be read in a second.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Mapping
from io import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

from ._bounded import CHECKPOINT, check_size, read_json
from ._tensors import DTYPES, WIDTHS, Tensor

__all__ = ["LONGEST_HEADER", "MOST_TENSORS", "check_room", "read_header", "read_tensors", "write_container"]

LONGEST_HEADER = CHECKPOINT.characters
"""Bytes of a header; the limit of safetensors itself."""

MOST_TENSORS = 100_000
"""Tensors in a file; each has a header entry, which takes longer to read than the bytes of a small tensor."""

_QUOTES, _MORE_QUOTES = 10, 100
"""Quotes in the header entry of a tensor, and those of the metadata and more."""

_NAMES = {name: str(dtype).rpartition(".")[2] for name, dtype in DTYPES.items()}
"""The names that the package takes for dtypes."""


def check_room(tensors: Mapping[str, Tensor], told: str) -> None:
    """Refuse what a header has no room for: ValueError, with the limit.

    >>> check_room({}, " " * LONGEST_HEADER)
    Traceback (most recent call last):
    ValueError: a checkpoint describes its trees in at most 100,000,000 bytes; these take 100,000,000 and more
    """
    if len(tensors) > MOST_TENSORS:
        raise ValueError(f"a checkpoint holds at most {MOST_TENSORS:,} arrays; got {len(tensors):,}: stack small ones")
    size = len(told) + told.count('"') + told.count("\\") + sum(len(name) for name in tensors) + 200 * len(tensors)
    if size >= LONGEST_HEADER:
        raise ValueError(
            f"a checkpoint describes its trees in at most {LONGEST_HEADER:,} bytes; these take {size:,} and more"
        )
    dims = sum(len(tensor.shape) for tensor in tensors.values())
    check_size("".join((told, *tensors)), parts=3 * len(tensors) + 2, values=5 * len(tensors) + dims + 5)


def write_container(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file straight from the tensors' memory. OSError where the system fails."""
    from safetensors import SafetensorError, TensorSpec, serialize_file

    specs = {
        name: TensorSpec(
            dtype=_NAMES[tensor.dtype], shape=tensor.shape, data_ptr=_address(tensor.data), data_len=len(tensor.data)
        )
        for name, tensor in tensors.items()
    }
    try:
        serialize_file(specs, path, dict(metadata))
    except SafetensorError as error:
        raise _as_os_error(error, path) from None


def read_header(file: BinaryIO) -> dict[str, str]:
    """Return the metadata in a header that is strictly one. ValueError, saying what is wrong.

    >>> from io import BytesIO
    >>> read_header(BytesIO((28).to_bytes(8, "little") + b'{"__metadata__":{"a":"b"}}  '))
    {'a': 'b'}
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    if size < 8:
        raise ValueError("it is shorter than a header")
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise ValueError(f"its header should have {length} bytes, more than there are")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, and the limit is {LONGEST_HEADER}")
    entries = _entries(_decoded(file.read(length)))
    metadata = entries.pop("__metadata__", None) or {}  # MLX writes null where there is none
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("the metadata in its header are no texts by name")
    for name, entry in entries.items():
        _check(name, entry)
    return metadata


def read_tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a whole file whose header is checked. ValueError where they are not where it says.

    >>> read_tensors((26).to_bytes(8, "little") + b'{"__metadata__":{"a":"b"}}')
    {}
    """
    from safetensors import SafetensorError, deserialize

    try:
        parts = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ValueError(f"its bytes are not those of its header: {error}") from None
    return {name: Tensor(part["dtype"], tuple(part["shape"]), memoryview(part["data"])) for name, part in parts}


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data)) if len(data) else 0


def _as_os_error(error: Exception, path: Path) -> Exception:
    """Return the error of the system that the package tells of in words."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return error if number is None else OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path))


def _decoded(text: bytes) -> str:
    """Decode a header, with JSON's escapes for what is no ASCII: wide characters would take four times the memory."""
    if not text.startswith(b"{"):
        raise ValueError("its header is no JSON object")
    if text.count(b'"data_offsets"') > MOST_TENSORS:
        raise ValueError(f"its header has more than {MOST_TENSORS:,} tensors, and that is the limit")
    if text.count(b'"') - text.count(b'\\"') > _QUOTES * MOST_TENSORS + _MORE_QUOTES:
        raise ValueError(f"its header has more names than {MOST_TENSORS:,} tensors have, and that is the limit")
    check_size(text)
    if text.isascii():
        return text.decode("ascii")
    if re.search(rb"[\x80-\xff]{1025}", text):
        raise ValueError("its header has a name longer than any that mlx_fp writes")
    return re.sub(rb"[\x80-\xff]+", _escaped, text).decode("ascii")


def _escaped(found: re.Match[bytes]) -> bytes:
    return json.dumps(found[0].decode())[1:-1].encode()


def _entries(text: str) -> dict[str, Any]:
    try:
        entries = read_json(text, hook=_unique)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    except ValueError as error:  # no JSON, a key twice
        raise ValueError(f"its header is no JSON: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _check(name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} in its header has no dtype, shape and offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in WIDTHS:
        raise ValueError(f"tensor {name!r} in its header has the unknown dtype {entry['dtype']!r}")
