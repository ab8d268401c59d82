"""Checkpoints: one file with parameters, the state beside them, and what else a run must know to go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..core._errors import CheckpointError
from ..core._mlx import mx
from ..core._types import Array, Params, State
from ..core._user_path import user_path
from ..tree._paths import flat, partition
from ._bounded import read_json
from ._files import write_whole
from ._manifest import Packed, rebuild, take_down
from ._packed import UNPACKED
from ._safetensors import check_safetensors, peek_safetensors, read_safetensors, write_safetensors
from ._schemas import SCHEMA, migrated
from ._tensors import as_tensor

__all__ = ["SUFFIXES", "Checkpoint", "checked", "found", "load", "peek", "prepared", "save", "suffixed"]

PREFIX = "__mlx_fp__"
"""In front of the names of arrays that are no parameters."""

SUFFIXES = (".safetensors", ".npz")
"""What a checkpoint may end in."""

_REMEDY = "Weights that mlx.load reads can be given as params=; anything else, convert to safetensors"

OTHERS = frozenset({".bin", ".ckpt", ".gguf", ".h5", ".json", ".npy", ".pickle", ".pkl", ".pt", ".pth", ".zip"})
"""What other kinds of files end in."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file held: parameters, state, a dict of plain values, and the paths of parameters that were left out."""

    params: Params = field(repr=False)
    opt_state: State | None = field(repr=False)
    metadata: Mapping[str, Any]
    path: Path | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


def save(
    path: str | os.PathLike[str],
    *misplaced: Any,
    opt_state: Any = None,
    metadata: Mapping[str, Any] | None = None,
    select: Any = None,
) -> Callable[[Params], Path]:
    """Say where and how parameters are saved; `save(path)(params)` writes a checkpoint, and returns where.

    The file is written whole or not at all; folders are made. Parameters stand under their own paths:
    `mlx.nn.Module.load_weights(path, strict=False)` reads them. Any dtype and shape comes back bit for bit. The call
    returns when the file is on disk.

    Args:
        path: the suffix is `.safetensors`, also where none is given, or `.npz`. `~` is the home of the user.
        opt_state: a tree to be kept beside the parameters.
        metadata: numbers, texts, arrays, None, or lists and dicts of them.
        select: which parameters the file holds; the paths of the others are listed in `load(path).left_out`.

    Raises:
        TypeError: the trees or `metadata` have a leaf that cannot be kept; nothing is written.
        ValueError: the suffix is that of another kind of file, or there is more than a file has room for.
        OSError: the file could not be written; the old one is intact.

    >>> import tempfile
    >>> path = save(os.path.join(tempfile.mkdtemp(), "a"), metadata={"epoch": 3})({"weight": mx.ones((2,))})
    >>> load(path).params, dict(load(path).metadata)
    ({'weight': array([1, 1], dtype=float32)}, {'epoch': 3})
    """
    if misplaced or not isinstance(path, (str, os.PathLike)):
        got = "two values" if misplaced else type(path).__name__
        raise TypeError(f"save(path)(params): the parameters come last, in a call of their own; got {got} in its first")
    target = suffixed(user_path(path))
    return lambda params: prepared(target, params, opt_state=opt_state, metadata=metadata, select=select)()


def prepared(
    path: Path,
    params: Params,
    *,
    opt_state: Any = None,
    metadata: Mapping[str, Any] | None = None,
    select: Any = None,
    swept: bool = False,
) -> Callable[[], Path]:
    """Do all of `save` but the writing, and return what writes; a thread may call it, for it evaluates nothing.

    `swept` says that no killed writer has left anything in the folder.

    >>> import tempfile
    >>> write = prepared(Path(tempfile.mkdtemp()) / "a", {"weight": mx.ones((2,))})
    >>> write().name
    'a.safetensors'
    """
    target, arrays = suffixed(path), dict[str, Any]()
    held, others = (params, {}) if select is None else partition(select)(params)
    manifest = {
        "params": take_down(held, arrays),
        "opt_state": take_down(opt_state, arrays, f"{PREFIX}.opt_state"),
        "metadata": take_down(dict(metadata or {}), arrays, f"{PREFIX}.metadata"),
        "left_out": list(flat(others)),
    }
    tensors = {name: leaf.tensor if isinstance(leaf, Packed) else as_tensor(leaf) for name, leaf in arrays.items()}
    told, write = json.dumps(manifest, allow_nan=False), write_safetensors
    if target.suffix == ".npz":
        from ._npz import write_npz as write
    return lambda: write_whole(target, lambda beside: write(beside, tensors, told, SCHEMA), swept=swept)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint; without a suffix `.safetensors` is looked for, then `.npz`. `~` is the home of the user.

    Every byte is checked against the digest in the file before any array is handed out. A file of an older schema is
    read, too.

    Raises:
        CheckpointError: the file is damaged, or none, or of a newer schema; the error names the file and the fault.
        FileNotFoundError: there is none.
    """
    source = found(path)
    try:
        read = read_safetensors
        if source.suffix == ".npz":
            from ._npz import read_npz as read
        arrays, told, schema = read(source)
        return _rebuilt(arrays, migrated(read_json(told), schema), source)
    except (ValueError, RecursionError, KeyError, TypeError, OverflowError) as error:
        fault = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{source} is no checkpoint that can be read: {fault}") from None


def suffixed(path: Path) -> Path:
    """Return the path with a suffix of a checkpoint's. ValueError for that of another kind of file.

    >>> suffixed(Path("runs/v1.5-best")).name
    'v1.5-best.safetensors'
    """
    if path.suffix in SUFFIXES:
        return path
    if path.suffix in OTHERS:
        raise ValueError(f"a checkpoint ends in .safetensors or .npz; got {path.name!r}")
    return path.with_name(path.name + SUFFIXES[0])


def peek(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the metadata of a checkpoint without reading its arrays or checking its bytes; None if it is none.

    Arrays and long lists among the metadata are left out. OSError where the file cannot be read.
    """
    source = Path(path)
    try:
        read = peek_safetensors
        if source.suffix == ".npz":
            from ._npz import peek_npz as read
        return _metadata(read(source))
    except (ValueError, RecursionError, KeyError, TypeError):
        return None


def checked(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `peek` does after every byte is checked against the digest; no array is made.

    CheckpointError for a file that is damaged or none. OSError where it cannot be read.
    """
    source = Path(path)
    try:
        check = check_safetensors
        if source.suffix == ".npz":
            from ._npz import check_npz as check
        return _metadata(check(source))
    except (ValueError, RecursionError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{source} is no checkpoint that can be read: {error}") from None


def _metadata(manifest: str) -> dict[str, Any]:
    found = rebuild(read_json(manifest)["metadata"], _left_out, _left_out)
    if not isinstance(found, dict):
        raise ValueError("its metadata are no dict")
    return found


def _left_out(*of: str) -> Any:
    return None


def found(path: str | os.PathLike[str]) -> Path:
    """Return the file of a checkpoint named without its suffix.

    FileNotFoundError, naming what was looked for; CheckpointError for a file of another kind.
    """
    source = user_path(path)
    tried = [source] if source.suffix in SUFFIXES else [source.with_name(source.name + s) for s in SUFFIXES]
    for one in tried:
        if one.exists() and not one.is_dir():
            return one
    if source.is_file():
        raise CheckpointError(f"{source} is no checkpoint: the name of one ends in .safetensors or .npz. {_REMEDY}")
    raise FileNotFoundError(f"there is no checkpoint {' or '.join(map(str, tried))}")


def _rebuilt(left: dict[str, Array], manifest: Any, source: Path) -> Checkpoint:
    """Build trees of arrays; each array must have its place."""

    def packed(kind: str, name: str) -> Any:
        array = left.pop(name)
        if kind not in UNPACKED or array.dtype != mx.uint8 or array.ndim != 1:
            raise ValueError(f"its manifest has a {kind!r} that is none")
        return UNPACKED[kind](memoryview(array) if array.size else memoryview(b""))  # type: ignore[arg-type]

    trees = {part: rebuild(manifest[part], left.pop, packed) for part in ("params", "opt_state", "metadata")}
    if left:
        raise ValueError(f"its manifest has no place for {next(iter(left))!r}")
    left_out = manifest["left_out"]
    if not isinstance(left_out, list) or not all(isinstance(path, str) for path in left_out):
        raise ValueError("its manifest has no list of the paths that were left out")
    return Checkpoint(trees["params"], trees["opt_state"], trees["metadata"], source, tuple(left_out))
