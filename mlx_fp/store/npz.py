"""Checkpoints as `.npz`, by numpy alone: MLX's own reader of it can end the process. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .tensors import WIDTHS, Tensor

__all__ = ["peek_npz", "read_npz", "write_npz"]

_NUMPY = {
    **{f"U{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)},
    **{f"I{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)},
    "BOOL": "|b1",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<c8",
    "BF16": "<u2",
}
"""numpy's dtypes; it has no bfloat16, which is kept as its 16 bits."""

_MANIFEST, _INFO = "__mlx_fp__.manifest", "__mlx_fp__.info"


def write_npz(file: BinaryIO, tensors: Mapping[str, Tensor], told: str, schema: int) -> None:
    """Write tensors as members of their names, and the manifest and the digest of all as members of bytes.

    Members have the names of the tensors, with what a zip file could not hold escaped.
    """
    import numpy as np

    names = {name: f"t{i}" if _is_odd(name) else name for i, name in enumerate(tensors)}
    entries = [[tensor.dtype, names[name], name] for name, tensor in tensors.items()]
    info = json.dumps({"schema": schema, "sha256": _digest(tensors, told), "tensors": entries})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as members:
        texts = {_MANIFEST: told, _INFO: info}
        for name, text in texts.items():
            _put(members, name, np.frombuffer(text.encode(), np.uint8))
        for name, tensor in tensors.items():
            _put(members, names[name], np.frombuffer(tensor.data, _NUMPY[tensor.dtype]).reshape(tensor.shape))


def read_npz(source: Path) -> tuple[dict[str, Tensor], str, int]:
    """Return the tensors, the manifest and the schema. ValueError for anything odd."""
    with source.open("rb") as file:
        try:
            return _read(file)
        except Exception as error:  # zip files and numpy's headers can be wrong in many ways
            raise ValueError(f"it is damaged: {error}") from None


def peek_npz(source: Path) -> str:
    """Return the manifest alone."""
    import numpy as np

    with source.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as members:
                return bytes(members[_MANIFEST]).decode()
        except Exception as error:
            raise ValueError(f"it is damaged: {error}") from None


def _read(file: BinaryIO) -> tuple[dict[str, Tensor], str, int]:
    import numpy as np

    with np.load(file, allow_pickle=False) as members:
        told, info = bytes(members[_MANIFEST]).decode(), json.loads(bytes(members[_INFO]))
        tensors = dict(_tensor(dtype, member, name, members) for dtype, member, name in info["tensors"])
        if len(members.files) != len(tensors) + 2:
            raise ValueError("it has members of no name")
    if _digest(tensors, told) != info["sha256"]:
        raise ValueError("its digest is another")
    return tensors, told, int(info["schema"])


def _put(members: zipfile.ZipFile, name: str, array: Any) -> None:
    import numpy as np

    with members.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _tensor(dtype: str, member: str, name: str, members: Any) -> tuple[str, Tensor]:
    import numpy as np

    array = members[member]
    if dtype not in WIDTHS or not isinstance(array, np.ndarray) or array.dtype != np.dtype(_NUMPY[dtype]):
        raise ValueError(f"tensor {name!r} is no {dtype}")
    data: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.size else b""
    return name, Tensor(dtype, array.shape, memoryview(data))


def _digest(tensors: Mapping[str, Tensor], told: str) -> str:
    digest = hashlib.sha256(told.encode())
    for name, tensor in tensors.items():
        digest.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode("utf-8", "surrogatepass"))
        digest.update(tensor.data)
    return digest.hexdigest()


def _is_odd(name: str) -> bool:
    return not name.isascii() or any(c in name for c in "/\\:\0\n") or name in ("file", _MANIFEST, _INFO)
