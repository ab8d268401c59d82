"""`mlx-fp show CHECKPOINT`: the arrays and the metadata of a checkpoint."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

from ..core._bytes import bytes_text
from ..core._container import read_header
from ..core._errors import CheckpointError
from ..core._regular import reading
from ..core._tensors import DTYPES, WIDTHS
from ..core._text import dtype_name, shape_text, table
from ..core._user_path import user_path
from ..store._checkpoint import load, peek
from ..store._checkpoint_path import SUFFIXES, find_checkpoint
from ..tree._paths import flat
from ._usage import UsageError, as_usage, missing_path

__all__ = ["show_checkpoint"]

_LONGEST = 100
"""The longest text of a value of the metadata."""

_OURS = "__mlx_fp__."
"""The beginning of the names of arrays that are no parameters."""


class _Entry(NamedTuple):
    """An array in a file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


def show_checkpoint(arguments: Namespace) -> int:
    """Print the names, shapes, dtypes and bytes of the arrays in a file, and its metadata.

    Of a safetensors file only the header is read, also of one that another program has written.

    Args:
        arguments: `path` of the command line: a checkpoint, or the folder of a run.

    Returns:
        The exit status 0.
    """
    path = _checkpoint_file(user_path(arguments.path))
    with as_usage(CheckpointError, ValueError, OSError, beginning=f"{path} cannot be shown: "):
        entries = list(_npz_entries(path) if path.suffix == ".npz" else _safetensors_entries(path))
        metadata = peek(path)
    entries.sort(key=lambda each: each.name.startswith(_OURS))  # the parameters come first
    rows = [(each.name, shape_text(each.shape), each.dtype, f"{each.nbytes:,}") for each in entries]
    print(table([(str(path), "shape", "dtype", "bytes"), *rows], left=3))
    print(f"\n{_totals(entries)}")
    if metadata:
        print(f"\n{table([('metadata', ''), *_metadata_rows(metadata)], left=2)}")
    return 0


def _checkpoint_file(path: Path) -> Path:
    """Return the file of a checkpoint; of a folder the newest one."""
    if path.is_dir():
        files = [file for suffix in SUFFIXES for file in path.glob(f"*{suffix}")]
        if not files:
            raise UsageError(f"the folder {str(path)!r} has no checkpoint: no file ends in {' or '.join(SUFFIXES)}")
        return max(files, key=lambda file: file.stat().st_mtime_ns)
    try:
        return find_checkpoint(path)
    except FileNotFoundError:
        raise missing_path("checkpoint", path) from None
    except CheckpointError as error:
        raise UsageError(str(error)) from error


def _safetensors_entries(path: Path) -> Iterator[_Entry]:
    """Yield the arrays of a safetensors file, after a check of its header."""
    from safetensors import safe_open

    with reading(path) as file:
        read_header(file)
    with safe_open(path, framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # it is no dict
            part = tensors.get_slice(name)
            shape, kind = tuple(part.get_shape()), part.get_dtype()
            yield _Entry(name, shape, dtype_name(DTYPES.get(kind, kind)), prod(shape) * WIDTHS[kind])


def _npz_entries(path: Path) -> Iterator[_Entry]:
    checkpoint = load(path)
    for name, leaf in {**flat(checkpoint.params), **flat({f"{_OURS}opt_state": checkpoint.opt_state or {}})}.items():
        yield _Entry(name, tuple(leaf.shape), dtype_name(leaf.dtype), leaf.nbytes)


def _totals(entries: list[_Entry]) -> str:
    """Return the number of arrays and elements and the bytes, of the parameters and of the rest.

    >>> _totals([_Entry("w", (2, 3), "float32", 24), _Entry("__mlx_fp__.opt_state.step", (), "uint64", 8)])
    '1 array of parameters with 6 elements, 24 B; 1 other array, 8 B'
    """
    ours = [each for each in entries if each.name.startswith(_OURS)]
    params = [each for each in entries if not each.name.startswith(_OURS)]
    elements = sum(prod(each.shape) for each in params)
    first = f"{_counted(params, 'array')} of parameters with {elements:,} elements, {_bytes_of(params)}"
    return f"{first}; {_counted(ours, 'other array')}, {_bytes_of(ours)}" if ours else first


def _counted(entries: list[_Entry], noun: str) -> str:
    return f"{len(entries):,} {noun}{'' if len(entries) == 1 else 's'}"


def _bytes_of(entries: list[_Entry]) -> str:
    return bytes_text(sum(each.nbytes for each in entries))


def _metadata_rows(metadata: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in metadata.items():
        text = repr(value)
        yield name, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
