"""Read and write checkpoints as `.safetensors`, with the manifest and the digest in the metadata of the header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ..core._container import check_room, read_header, read_tensors, write_container
from ..core._regular import reading
from ..core._tensors import Tensor, as_array
from ..core._types import Array
from . import _schema_1
from ._digest import digesting
from ._schemas import check_schema

__all__ = ["check_safetensors", "is_foreign", "peek_safetensors", "read_safetensors", "write_safetensors"]

T = TypeVar("T")

KEYS = {"format", "schema", "sha256", "manifest"}
"""The keys of the metadata in the header of a checkpoint."""


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], manifest: str, schema: int) -> None:
    """Write tensors, the manifest, and the digest of both."""
    check_room(tensors, manifest)
    pool, digest = digesting(tensors)
    with pool:
        sha256 = digest.of(schema, manifest)
    write_container(path, tensors, {"format": "mlx_fp", "schema": str(schema), "sha256": sha256, "manifest": manifest})


def read_safetensors(source: Path) -> tuple[dict[str, Array], str, int]:
    """Check all bytes against the digest, then return the arrays, the manifest and the schema.

    An invalid file raises ValueError.
    """
    arrays, manifest, schema = _read_checked(source, _as_arrays)
    return arrays, manifest, schema


def check_safetensors(source: Path) -> str:
    """Check all bytes against the digest, then return the manifest. An invalid file raises ValueError."""
    return _read_checked(source, lambda tensors: None)[1]


def peek_safetensors(source: Path) -> str:
    """Return the manifest after a check of the header, without a check of the digest."""
    with reading(source) as file:
        return read_header(file).get("manifest", "")


def is_foreign(path: Path) -> bool:
    """Tell whether a file is a valid safetensors file but no checkpoint."""
    try:
        with reading(path) as file:
            return "manifest" not in read_header(file)
    except ValueError:
        return False


def _read_checked(source: Path, convert: Callable[[dict[str, Tensor]], T]) -> tuple[T, str, int]:
    """Return the converted tensors, the manifest and the schema. Threads compute the digest during the conversion."""
    with reading(source) as file:
        metadata = read_header(file)
        if metadata.get("format") != "mlx_fp":
            raise ValueError("it has tensors, but mlx_fp did not write it; for weights alone use mx.load")
        if metadata.keys() != KEYS:
            raise ValueError(f"the metadata in its header are {', '.join(sorted(metadata))}")
        schema, manifest = int(metadata["schema"]), metadata["manifest"]
        check_schema(schema)
        file.seek(0)
        content = file.read()
    if schema == _schema_1.NUMBER:
        _schema_1.check_digest(content, metadata["sha256"])
        return convert(read_tensors(content)), manifest, schema
    tensors = read_tensors(content)
    del content  # free the bytes before the arrays are built
    pool, digest = digesting(tensors)
    with pool:
        converted = convert(tensors)
        if digest.of(schema, manifest) != metadata["sha256"]:
            raise ValueError("it is damaged: its digest differs")
    return converted, manifest, schema


def _as_arrays(tensors: dict[str, Tensor]) -> dict[str, Array]:
    """Convert tensors to arrays, and free the bytes of each tensor."""
    return {name: as_array(tensors.pop(name)) for name in list(tensors)}
