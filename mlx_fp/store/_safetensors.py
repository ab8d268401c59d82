"""Checkpoints as `.safetensors`: the manifest and the digest of all stand in the metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ..core._types import Array
from . import _schema_1
from ._container import check_room, read_header, read_tensors, write_container
from ._digest import digesting
from ._regular import reading
from ._schemas import check_schema
from ._tensors import Tensor, as_array

__all__ = ["check_safetensors", "is_foreign", "peek_safetensors", "read_safetensors", "write_safetensors"]

T = TypeVar("T")

KEYS = {"format", "schema", "sha256", "manifest"}
"""What the metadata of a checkpoint hold."""


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], told: str, schema: int) -> None:
    """Write tensors and the manifest; the digest of all is made first."""
    check_room(tensors, told)
    pool, digest = digesting(tensors)
    with pool:
        found = digest.of(schema, told)
    write_container(path, tensors, {"format": "mlx_fp", "schema": str(schema), "sha256": found, "manifest": told})


def read_safetensors(source: Path) -> tuple[dict[str, Array], str, int]:
    """Return the arrays, the manifest and the schema. ValueError for anything odd; nothing comes out before that."""
    arrays, told, schema = _read(source, _as_arrays)
    return arrays, told, schema


def check_safetensors(source: Path) -> str:
    """Return the manifest after all bytes are checked against the digest. ValueError for anything odd."""
    return _read(source, lambda tensors: None)[1]


def peek_safetensors(source: Path) -> str:
    """Return the manifest alone; the header is checked, and no digest."""
    with reading(source) as file:
        return read_header(file).get("manifest", "")


def is_foreign(path: Path) -> bool:
    """Tell whether a safetensors file has a sound header, and nothing in it of a checkpoint."""
    try:
        with reading(path) as file:
            return "manifest" not in read_header(file)
    except ValueError:
        return False


def _read(source: Path, made: Callable[[dict[str, Tensor]], T]) -> tuple[T, str, int]:
    """Return what is made of the tensors while their digest is, the manifest and the schema."""
    with reading(source) as file:
        metadata = read_header(file)
        if metadata.get("format") != "mlx_fp":
            raise ValueError("it has tensors, but mlx_fp did not write it; for weights alone use mx.load")
        if metadata.keys() != KEYS:
            raise ValueError(f"the metadata in its header are {', '.join(sorted(metadata))}")
        schema, told = int(metadata["schema"]), metadata["manifest"]
        check_schema(schema)
        file.seek(0)
        content = file.read()
    if schema == _schema_1.NUMBER:
        _schema_1.check_digest(content, metadata["sha256"])
        return made(read_tensors(content)), told, schema
    tensors = read_tensors(content)
    del content  # before the arrays are made
    pool, digest = digesting(tensors)
    with pool:
        found = made(tensors)
        if digest.of(schema, told) != metadata["sha256"]:
            raise ValueError("it is damaged: its digest is another")
    return found, told, schema


def _as_arrays(tensors: dict[str, Tensor]) -> dict[str, Array]:
    """Make arrays, and let go of the bytes of each."""
    return {name: as_array(tensors.pop(name)) for name in list(tensors)}
