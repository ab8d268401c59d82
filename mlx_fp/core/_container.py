"""Read and write safetensors files with the package `safetensors`, after a strict check of the header.

Format: https://huggingface.co/docs/safetensors. The check refuses some headers that the package accepts. For example:
duplicate keys, metadata that are not texts, dtypes that MLX does not have, more tensors than one second can read.
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
from ._text import dtype_name

__all__ = [
    "LONGEST_HEADER",
    "MOST_TENSORS",
    "check_room",
    "read_header",
    "read_places",
    "read_tensors",
    "write_container",
]

LONGEST_HEADER = CHECKPOINT.characters
"""The maximum number of bytes of a header. This is also the limit of safetensors."""

MOST_TENSORS = 100_000
"""The maximum number of tensors in a file. The header entry of a small tensor takes longer to read than its bytes."""

_QUOTES, _MORE_QUOTES = 10, 100
"""The number of quotes in the header entry of a tensor, and a bound for those in the metadata and the rest."""

_NAMES = {name: dtype_name(dtype) for name, dtype in DTYPES.items()}
"""The names of dtypes in the API of the package."""


def check_room(tensors: Mapping[str, Tensor], manifest: str) -> None:
    """Raise ValueError, with the limit, for a checkpoint that is too large for the header of a file.

    >>> check_room({}, " " * LONGEST_HEADER)
    Traceback (most recent call last):
    ValueError: a checkpoint describes its trees in at most 100,000,000 bytes; these take 100,000,000 and more
    """
    if len(tensors) > MOST_TENSORS:
        raise ValueError(f"a checkpoint holds at most {MOST_TENSORS:,} arrays; got {len(tensors):,}: stack small ones")
    escapes = manifest.count('"') + manifest.count("\\")
    size = len(manifest) + escapes + sum(len(name) for name in tensors) + 200 * len(tensors)
    if size >= LONGEST_HEADER:
        raise ValueError(
            f"a checkpoint describes its trees in at most {LONGEST_HEADER:,} bytes; these take {size:,} and more"
        )
    dims = sum(len(tensor.shape) for tensor in tensors.values())
    check_size("".join((manifest, *tensors)), parts=3 * len(tensors) + 2, values=5 * len(tensors) + dims + 5)


def write_container(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file directly from the memory of the tensors. Raise OSError where the system fails."""
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
    """Return the metadata of a header after a strict check. An invalid header raises ValueError with the fault.

    >>> from io import BytesIO
    >>> read_header(BytesIO((28).to_bytes(8, "little") + b'{"__metadata__":{"a":"b"}}  '))
    {'a': 'b'}
    """
    return read_places(file)[0]


def read_places(file: BinaryIO) -> tuple[dict[str, str], dict[str, range]]:
    """Return the metadata of a header, and the place of the bytes of each tensor in the file, after a strict check.

    >>> from io import BytesIO
    >>> read_places(BytesIO((2).to_bytes(8, "little") + b"{}"))
    ({}, {})
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
    entries = _parse_entries(_decode_header(file.read(length)))
    metadata = entries.pop("__metadata__", None) or {}  # MLX writes null for missing metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("the metadata in its header are not texts by name")
    checked = {name: _check_entry(name, entry) for name, entry in entries.items()}
    return metadata, {name: _place(name, entry["data_offsets"], 8 + length, size) for name, entry in checked.items()}


def read_tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a complete file, whose header must be checked already. Wrong offsets raise ValueError.

    >>> read_tensors((26).to_bytes(8, "little") + b'{"__metadata__":{"a":"b"}}')
    {}
    """
    from safetensors import SafetensorError, deserialize

    try:
        parts = deserialize(content)  # type: ignore[no-untyped-call]  # the package has no types here
    except SafetensorError as error:
        raise ValueError(f"its bytes do not agree with its header: {error}") from None
    return {name: Tensor(part["dtype"], tuple(part["shape"]), memoryview(part["data"])) for name, part in parts}


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data)) if len(data) else 0


def _as_os_error(error: Exception, path: Path) -> Exception:
    """Return the OSError that the message of the package describes."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return error if number is None else OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path))


def _decode_header(text: bytes) -> str:
    """Decode a header, with JSON escapes for non-ASCII characters, which would take four times the memory."""
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
    return re.sub(rb"[\x80-\xff]+", _escape, text).decode("ascii")


def _escape(match: re.Match[bytes]) -> bytes:
    return json.dumps(match[0].decode())[1:-1].encode()


def _parse_entries(text: str) -> dict[str, object]:
    try:
        entries = read_json(text, hook=_dict_without_duplicates)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    except ValueError as error:  # the text is no JSON, or has a duplicate key
        raise ValueError(f"its header is no JSON: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")
    return entries


def _dict_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("it has a duplicate key")
    return entries


def _check_entry(name: str, entry: object) -> dict[str, Any]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} in its header has no dtype, shape and offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in WIDTHS:
        raise ValueError(f"tensor {name!r} in its header has the unknown dtype {entry['dtype']!r}")
    return entry


def _place(name: str, offsets: Any, start: int, size: int) -> range:
    """Return where the bytes of a tensor lie in a file of `size` bytes, whose data begin at `start`."""
    is_pair = isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(offset, int) for offset in offsets)
    if is_pair and 0 <= offsets[0] <= offsets[1] <= size - start:
        return range(start + offsets[0], start + offsets[1])
    raise ValueError(f"tensor {name!r} in its header has the offsets {offsets!r}, and the file has {size} bytes")
