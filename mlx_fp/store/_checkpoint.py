"""Save and load checkpoints: one file with the parameters, the optimiser state and the metadata of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from ..core._bounded import read_json
from ..core._errors import CheckpointError
from ..core._files import write_whole
from ..core._mlx import mx
from ..core._tensors import as_tensor
from ..core._types import Array, Params, State, Tree
from ..core._user_path import user_path
from ..tree._paths import flat, partition
from ._checkpoint_path import find_checkpoint, suffixed
from ._manifest import Packed, describe_tree, restore_tree
from ._packed import UNPACKED
from ._safetensors import check_safetensors, peek_safetensors, read_safetensors, write_safetensors
from ._schemas import SCHEMA, migrate

__all__ = [
    "Checkpoint",
    "Metadata",
    "check_and_peek",
    "load",
    "peek",
    "prepare_save",
    "save",
]

Metadata: TypeAlias = Mapping[str, Any]
"""Numbers, texts, arrays, None, and lists and dicts of them, by name."""

PREFIX = "__mlx_fp__"
"""The prefix of the names of arrays that are not parameters."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Hold the content of a checkpoint file.

    Args:
        params: The parameters.
        opt_state: The optimiser state, or None.
        metadata: A read-only dict of plain values.
        path: The file. Default: None.
        left_out: The paths of the parameters that the file does not contain.
    """

    params: Params = field(repr=False)
    opt_state: State | None = field(repr=False)
    metadata: Metadata
    path: Path | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


def save(
    path: str | os.PathLike[str],
    *misplaced: object,
    opt_state: Tree = None,
    metadata: Metadata | None = None,
    select: object = None,
) -> Callable[[Params], Path]:
    """Save parameters to a checkpoint file; the call is `save(path)(params)`.

    The write is atomic: the path holds the complete old file or the complete new file. Missing folders are created.
    The arrays have their parameter paths as names, so `mlx.nn.Module.load_weights(path, strict=False)` reads the file.
    `load` returns every dtype and shape bit for bit. The call returns when the file is on disk.

    Args:
        path: The file, with the suffix `.safetensors` or `.npz`. Without a suffix, `.safetensors` is appended. `~` is
            the home folder of the user.
        opt_state: A tree to save with the parameters, for example the optimiser state. Default: none.
        metadata: Numbers, texts, arrays, None, and lists and dicts of them, by name. Default: none.
        select: The parameters to save, as `fp.select` takes them. `load(path).left_out` lists the paths of the others.
            Default: all parameters.

    Returns:
        A function `params -> path`, which writes the file and returns its path.

    Raises:
        TypeError: A leaf of the trees or of `metadata` cannot be saved. Nothing is written.
        ValueError: The suffix belongs to another kind of file, or the content exceeds the limits of a file.
        OSError: The system cannot write the file. The old file is intact.

    >>> import tempfile
    >>> path = save(os.path.join(tempfile.mkdtemp(), "a"), metadata={"epoch": 3})({"weight": mx.ones((2,))})
    >>> load(path).params, dict(load(path).metadata)
    ({'weight': array([1, 1], dtype=float32)}, {'epoch': 3})
    """
    if misplaced or not isinstance(path, (str, os.PathLike)):
        got = "two values" if misplaced else type(path).__name__
        raise TypeError(f"save(path)(params): the parameters come last, in a call of their own; got {got} in its first")
    target = suffixed(user_path(path))
    return lambda params: prepare_save(target, params, opt_state=opt_state, metadata=metadata, select=select)()


def prepare_save(
    path: Path,
    params: Params,
    *,
    opt_state: Tree = None,
    metadata: Metadata | None = None,
    select: object = None,
    swept: bool = False,
) -> Callable[[], Path]:
    """Evaluate the arrays of a checkpoint, and return a function that writes the file.

    The function evaluates no arrays, so another thread may call it. `swept` states that the folder contains no
    leftovers of killed writers.

    >>> import tempfile
    >>> write = prepare_save(Path(tempfile.mkdtemp()) / "a", {"weight": mx.ones((2,))})
    >>> write().name
    'a.safetensors'
    """
    target = suffixed(path)
    arrays: dict[str, Array | Packed] = {}
    selected, others = (params, {}) if select is None else partition(select)(params)
    manifest = {
        "params": describe_tree(selected, arrays),
        "opt_state": describe_tree(opt_state, arrays, f"{PREFIX}.opt_state"),
        "metadata": describe_tree(dict(metadata or {}), arrays, f"{PREFIX}.metadata"),
        "left_out": list(flat(others)),
    }
    tensors = {name: leaf.tensor if isinstance(leaf, Packed) else as_tensor(leaf) for name, leaf in arrays.items()}
    description, write = json.dumps(manifest, allow_nan=False), write_safetensors
    if target.suffix == ".npz":
        from ._npz import write_npz as write
    return lambda: write_whole(target, lambda new: write(new, tensors, description, SCHEMA), swept=swept)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Load a checkpoint.

    Every byte is checked against the digest in the file before the function returns an array. Files of older schemas
    are converted.

    Args:
        path: The file. Without a suffix, the function looks for `.safetensors`, then for `.npz`. `~` is the home folder
            of the user.

    Returns:
        The parameters, the optimiser state, the metadata, and the paths of the parameters that the file leaves out.

    Raises:
        CheckpointError: The file is damaged, is no checkpoint, or has a newer schema. The message names the file and
            the fault.
        FileNotFoundError: There is no such file.
    """
    source = find_checkpoint(path)
    try:
        read = read_safetensors
        if source.suffix == ".npz":
            from ._npz import read_npz as read
        arrays, manifest, schema = read(source)
        return _restore(arrays, migrate(read_json(manifest), schema), source)
    except (ValueError, RecursionError, KeyError, TypeError, OverflowError) as error:
        fault = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{source} is no checkpoint that can be read: {fault}") from None


def peek(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the metadata of a checkpoint, or None if the file is no checkpoint.

    The function reads no arrays and does not check the digest. Arrays and long lists among the metadata are None. It
    raises OSError where the system cannot read the file.
    """
    source = Path(path)
    try:
        read = peek_safetensors
        if source.suffix == ".npz":
            from ._npz import peek_npz as read
        return _metadata(read(source))
    except (ValueError, RecursionError, KeyError, TypeError):
        return None


def check_and_peek(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Check every byte of a checkpoint against its digest, then return the same metadata as `peek`.

    The function builds no arrays. It raises CheckpointError for a file that is damaged or no checkpoint, and OSError
    where the system cannot read the file.
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
    metadata = restore_tree(read_json(manifest)["metadata"], _omit, _omit)
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are not a dict")
    return metadata


def _omit(*names: str) -> Tree:
    """Return None in the place of an array or a packed list."""
    return None


def _restore(arrays: dict[str, Array], manifest: Any, source: Path) -> Checkpoint:
    """Build the trees of a checkpoint. The manifest must use every array exactly once."""

    def unpack(kind: str, name: str) -> list[Tree]:
        array = arrays.pop(name)
        if kind not in UNPACKED or array.dtype != mx.uint8 or array.ndim != 1:
            raise ValueError(f"its manifest has an invalid {kind!r}")
        content: Any = array
        return UNPACKED[kind](memoryview(content) if array.size else memoryview(b""))

    trees = {part: restore_tree(manifest[part], arrays.pop, unpack) for part in ("params", "opt_state", "metadata")}
    if arrays:
        raise ValueError(f"its manifest has no place for {next(iter(arrays))!r}")
    left_out = manifest["left_out"]
    if not isinstance(left_out, list) or not all(isinstance(path, str) for path in left_out):
        raise ValueError("its manifest has no list of the paths that were left out")
    return Checkpoint(trees["params"], trees["opt_state"], trees["metadata"], source, tuple(left_out))
