"""Checkpoints as `.npz`, by numpy alone: MLX's own reader of it can end the process. Nothing is ever unpickled."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..core._types import Array
from ._bounded import read_json
from ._container import MOST_TENSORS, check_room
from ._files import begun
from ._regular import reading
from ._schemas import check_schema
from ._tensors import WIDTHS, Tensor, as_array

__all__ = ["check_npz", "peek_npz", "read_npz", "write_npz"]

T = TypeVar("T")

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

_MEMBER = b"PK\1\2"
"""What the entry of a member begins with in the list of an archive."""

_MANIFEST, _INFO = "__mlx_fp__.manifest", "__mlx_fp__.info"


def write_npz(path: Path, tensors: Mapping[str, Tensor], told: str, schema: int) -> None:
    """Write tensors as members of their names, and the manifest and the digest of all as members of bytes.

    Members have the names of the tensors, with what a zip file could not hold escaped.
    """
    import numpy as np

    check_room(tensors, told)
    names = {name: f"t{i}" if _is_odd(name) else name for i, name in enumerate(tensors)}
    entries = [[tensor.dtype, names[name], name] for name, tensor in tensors.items()]
    info = json.dumps({"schema": schema, "sha256": _digest(tensors, told), "tensors": entries})
    with begun(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as members:
        texts = {_MANIFEST: told, _INFO: info}
        for name, text in texts.items():
            _put(members, name, np.frombuffer(text.encode(), np.uint8))
        for name, tensor in tensors.items():
            _put(members, names[name], np.frombuffer(tensor.data, _NUMPY[tensor.dtype]).reshape(tensor.shape))


def read_npz(source: Path) -> tuple[dict[str, Array], str, int]:
    """Return the arrays, the manifest and the schema. ValueError for anything odd."""
    with reading(source) as file:
        with _faults():
            return _read(file, as_array)


def check_npz(source: Path) -> str:
    """Return the manifest after all bytes are checked against the digest. ValueError for anything odd."""
    with reading(source) as file:
        with _faults():
            return _read(file, lambda tensor: None)[1]


def peek_npz(source: Path) -> str:
    """Return the manifest alone."""
    with reading(source) as file:
        with _faults(), _opened(file) as archive:
            return _text(archive, _MANIFEST)


@contextmanager
def _faults() -> Iterator[None]:
    """Within, all that is wrong is a ValueError; zip files and numpy's headers can be wrong in many ways."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # zipfile takes a failing disk for an odd archive
            if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):  # it seeks before the start
                raise cause from None
            cause = cause.__context__
        raise ValueError(f"it is damaged: {error}") from None


def _read(file: BinaryIO, made: Callable[[Tensor], T]) -> tuple[dict[str, T], str, int]:
    """Read tensor by tensor what is made of each; nothing comes out before all is right."""
    with _opened(file) as archive:
        told, info = _text(archive, _MANIFEST), read_json(_text(archive, _INFO))
        check_schema(int(info["schema"]))
        listed = {member for _, member, _ in info["tensors"]}
        if len(archive.namelist()) != len(listed) + 2 or len(listed) != len(info["tensors"]):
            raise ValueError("it has members of no name, or of several")
        digest, arrays = hashlib.sha256(told.encode()), dict[str, T]()
        for dtype, member, name in info["tensors"]:
            tensor = _tensor(archive, dtype, member, name)
            _update(digest, name, tensor)
            arrays[name] = made(tensor)
            del tensor  # before the next one is read
        if len(arrays) != len(listed):
            raise ValueError("one name stands for several tensors")
    if digest.hexdigest() != info["sha256"]:
        raise ValueError("its digest is another")
    return arrays, told, int(info["schema"])


class _Listed:
    """A file that is read as an archive, with at most as many members as a checkpoint has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lists = True
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        if self._lists and content.count(_MEMBER) > MOST_TENSORS + 2:
            raise ValueError(f"it has more than {MOST_TENSORS:,} tensors, and that is the limit")
        return content

    def opened(self) -> None:
        """From now on members are read."""
        self._lists = False


def _opened(file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive. ValueError for one whose members would take more memory than the file has bytes."""
    size = file.seek(0, 2)
    listed = _Listed(file)
    archive = zipfile.ZipFile(listed)
    listed.opened()
    parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(p.file_size for p in parts) > size:
        raise ValueError("its members are packed, or one stands for another")
    return archive


def _put(members: zipfile.ZipFile, name: str, array: Any) -> None:
    import numpy as np

    with members.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _text(archive: zipfile.ZipFile, member: str) -> str:
    return str(_tensor(archive, "U8", member, member).data, "utf-8")


def _tensor(archive: zipfile.ZipFile, dtype: str, member: str, name: str) -> Tensor:
    """Read a member by numpy's own reader of headers; no array is made before its bytes are known to be there."""
    import numpy as np

    content = archive.read(f"{member}.npy")
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"tensor {name!r} is in a format of another version")
    shape, by_columns, kind = np.lib.format.read_array_header_1_0(file, max_header_size=2_000)
    tensor = Tensor(dtype, shape, memoryview(content)[file.tell() :])
    if dtype not in WIDTHS or kind != np.dtype(_NUMPY[dtype]) or by_columns or not _is_whole(tensor):
        raise ValueError(f"tensor {name!r} is no {dtype} of {shape}")
    return tensor


def _is_whole(tensor: Tensor) -> bool:
    return min(tensor.shape, default=0) >= 0 and tensor.fits


def _digest(tensors: Mapping[str, Tensor], told: str) -> str:
    digest = hashlib.sha256(told.encode())
    for name, tensor in tensors.items():
        _update(digest, name, tensor)
    return digest.hexdigest()


def _update(digest: Any, name: str, tensor: Tensor) -> None:
    digest.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode("utf-8", "surrogatepass"))
    digest.update(tensor.data)


def _is_odd(name: str) -> bool:
    return not name.isascii() or any(c in name for c in "/\\:\0\n") or name in ("file", _MANIFEST, _INFO)
