"""Checkpoints: one file with parameters, the state beside them, and what else a run must know to go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from ..core._errors import CheckpointError
from ..core._types import Array, Params, State
from ._container import LONGEST_HEADER, header, metadata_of, unpack
from ._files import write_whole
from ._manifest import rebuild, take_down
from ._tensors import Tensor, as_array, as_tensor

__all__ = ["SCHEMA", "SUFFIXES", "Checkpoint", "found", "is_foreign", "load", "peek", "prepared", "save", "suffixed"]

SCHEMA = 1
"""The version of what is in the file."""

PREFIX = "__mlx_fp__"
"""In front of the names of arrays that are no parameters."""

SUFFIXES = (".safetensors", ".npz")
"""What a checkpoint may end in."""

OTHERS = frozenset({".bin", ".ckpt", ".gguf", ".h5", ".json", ".npy", ".pickle", ".pkl", ".pt", ".pth", ".zip"})
"""What other kinds of files end in."""

_BLANK = "0" * 64
_LONG, _AHEAD = 1 << 20, 1
"""Bytes of a tensor that is worth a thread's while; tensors that may be read before their digest is made."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file held: parameters, state, and a dict of plain values."""

    params: Params = field(repr=False)
    opt_state: State | None = field(repr=False)
    metadata: Mapping[str, Any]
    path: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


def save(
    path: str | os.PathLike[str],
    params: Params,
    *,
    opt_state: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all, and return where; folders are made.

    The suffix is `.safetensors`, also where none is given, or `.npz`. Parameters stand under their own paths:
    `mlx.nn.Module.load_weights(path, strict=False)` reads them. Any dtype and shape comes back bit for bit. The call
    returns when the file is on disk. `metadata`, and what is no array in the trees, must be numbers, texts, None, or
    lists and dicts of them: TypeError, naming the place, before anything is written.

    >>> import tempfile
    >>> path = save(os.path.join(tempfile.mkdtemp(), "a"), {"weight": mx.ones((2,))}, metadata={"epoch": 3})
    >>> load(path).params, dict(load(path).metadata)
    ({'weight': array([1, 1], dtype=float32)}, {'epoch': 3})
    """
    return prepared(path, params, opt_state=opt_state, metadata=metadata)()


def prepared(
    path: str | os.PathLike[str],
    params: Params,
    *,
    opt_state: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> Callable[[], Path]:
    """Do all of `save` but the writing, and return what writes; a thread may call it, for it evaluates nothing.

    >>> import tempfile
    >>> write = prepared(os.path.join(tempfile.mkdtemp(), "a"), {"weight": mx.ones((2,))})
    >>> write().name
    'a.safetensors'
    """
    target = suffixed(Path(path))
    arrays: dict[str, Array] = {}
    manifest = {
        "params": take_down(params, arrays),
        "opt_state": take_down(opt_state, arrays, f"{PREFIX}.opt_state"),
        "metadata": take_down(dict(metadata or {}), arrays, f"{PREFIX}.metadata"),
    }
    tensors = {name: as_tensor(array) for name, array in arrays.items()}
    told = json.dumps(manifest, allow_nan=False)
    if target.suffix == ".npz":
        from ._npz import write_npz

        return lambda: write_whole(target, lambda file: write_npz(file, tensors, told, SCHEMA))
    return lambda: write_whole(target, lambda file: _write(file, tensors, told))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint; without a suffix `.safetensors` is looked for, then `.npz`.

    Every byte is checked against the digest in the file before any array is handed out. CheckpointError, naming the
    file and the fault, for one that is damaged, or none, or of a newer schema; FileNotFoundError where there is none.
    """
    source = found(path)
    try:
        if source.suffix == ".npz":
            from ._npz import read_npz

            arrays, told, schema = read_npz(source)
        else:
            arrays, told, schema = _read(source)
        if schema != SCHEMA:
            raise ValueError(f"its schema is {schema}, and this version of mlx_fp reads {SCHEMA}")
        return _rebuilt(arrays, json.loads(told), source)
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

    Arrays among the metadata are left out.
    """
    source = Path(path)
    try:
        if source.suffix == ".npz":
            from ._npz import peek_npz

            told = peek_npz(source)
        else:
            told = _head(source).get("manifest", "")
        found = rebuild(json.loads(told)["metadata"], _left_out)
        return found if isinstance(found, dict) else None
    except (ValueError, RecursionError, KeyError, TypeError, OSError):
        return None


def is_foreign(path: str | os.PathLike[str]) -> bool:
    """Tell whether a safetensors file has a sound header, and nothing in it of a checkpoint."""
    try:
        return "manifest" not in _head(Path(path))
    except (ValueError, OSError):
        return False


def _head(path: Path) -> dict[str, str]:
    """Read the metadata in the header of a safetensors file, and nothing else of it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return metadata_of(file.read(min(length, LONGEST_HEADER)))


def _left_out(name: str) -> Any:
    return None


def found(path: str | os.PathLike[str]) -> Path:
    """Return the file of a checkpoint named without its suffix. FileNotFoundError, naming what was looked for."""
    source = Path(path)
    tried = [source] if source.suffix in SUFFIXES else [source.with_name(source.name + s) for s in SUFFIXES]
    for one in tried:
        if one.is_file():
            return one
    raise FileNotFoundError(f"there is no checkpoint {' or '.join(map(str, tried))}")


def _write(file: BinaryIO, tensors: Mapping[str, Tensor], told: str) -> None:
    """Write the container, digesting its bytes meanwhile in a thread, and then the digest in its place."""
    metadata = {"format": "mlx_fp", "schema": str(SCHEMA), "sha256": _BLANK, "manifest": told}
    head = header(tensors, metadata)
    parts: list[Any] = [head, *(tensor.data for tensor in tensors.values())]
    with ThreadPoolExecutor(1) as aside:
        digest = aside.submit(_digest, parts)
        for part in parts:
            file.write(part)
        found = digest.result()
    file.seek(_place(head, _BLANK))
    file.write(found.encode())


def _read(source: Path) -> tuple[dict[str, Array], str, int]:
    """Read tensor by tensor, digesting the long ones meanwhile in a thread; nothing comes out before all is right."""
    with source.open("rb") as file, ThreadPoolExecutor(1) as aside:
        head, slots, metadata = unpack(file)
        if metadata.get("format") != "mlx_fp":
            raise ValueError("it has tensors, but mlx_fp did not write it; for weights alone use mx.load")
        at = _place(head, metadata["sha256"])
        digest, arrays = hashlib.sha256(), {}
        pending: deque[Future[None]] = deque()
        for part in (head[:at], _BLANK.encode(), memoryview(head)[at + 64 :]):
            digest.update(part)
        longest = max((size for _, _, size in slots.values()), default=0)
        buffers = cycle([memoryview(bytearray(longest)) for _ in range(min(_AHEAD + 1, len(slots)))])
        for name, (dtype, shape, size) in slots.items():
            data = next(buffers)[:size]
            if file.readinto(data) != size:
                raise ValueError("it changed while it was read")
            if pending or size >= _LONG:
                pending.append(aside.submit(digest.update, data))
            else:
                digest.update(data)
            arrays[name] = as_array(Tensor(dtype, shape, data))
            while pending and (len(pending) > _AHEAD or pending[0].done()):
                pending.popleft().result()
    if digest.hexdigest() != metadata["sha256"]:
        raise ValueError("it is damaged: its digest is another")
    return arrays, metadata["manifest"], int(metadata["schema"])


def _place(head: bytes, digest: str) -> int:
    """Return where the digest stands in a header."""
    mark = f'"sha256":"{digest}"'.encode()
    if len(digest) != 64 or head.count(mark) != 1:
        raise ValueError("its digest is not where it should be")
    return head.index(mark) + len(b'"sha256":"')


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _rebuilt(left: dict[str, Array], manifest: Any, source: Path) -> Checkpoint:
    """Build trees of arrays; each array must have its place."""
    trees = {part: rebuild(manifest[part], left.pop) for part in manifest}
    if left:
        raise ValueError(f"its manifest has no place for {next(iter(left))!r}")
    return Checkpoint(trees["params"], trees["opt_state"], trees["metadata"], source)
