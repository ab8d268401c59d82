"""Read and write checkpoints as `.npz` with numpy only, because the reader of MLX can crash. Nothing is unpickled."""

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

from ..core._bounded import read_json
from ..core._container import MOST_TENSORS, check_room
from ..core._files import create_new
from ..core._regular import reading
from ..core._tensors import WIDTHS, Tensor, as_array
from ..core._types import Array
from ._schemas import check_schema

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
"""The dtypes of numpy. It has no bfloat16, so bfloat16 is stored as its 16 bits."""

_MEMBER = b"PK\1\2"
"""The first bytes of the entry of a member in the directory of a zip file."""

_MANIFEST, _INFO = "__mlx_fp__.manifest", "__mlx_fp__.info"


def write_npz(path: Path, tensors: Mapping[str, Tensor], manifest: str, schema: int) -> None:
    """Write each tensor as a member with its name, and the manifest and the digest as members of bytes.

    A tensor whose name a zip file cannot hold has a member with a number. For example, the first such member is `t0`.
    """
    import numpy as np

    check_room(tensors, manifest)
    names = {name: f"t{i}" if _needs_escape(name) else name for i, name in enumerate(tensors)}
    entries = [[tensor.dtype, names[name], name] for name, tensor in tensors.items()]
    info = json.dumps({"schema": schema, "sha256": _digest_of_all(tensors, manifest), "tensors": entries})
    with create_new(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as members:
        texts = {_MANIFEST: manifest, _INFO: info}
        for name, text in texts.items():
            _write_member(members, name, np.frombuffer(text.encode(), np.uint8))
        for name, tensor in tensors.items():
            _write_member(members, names[name], np.frombuffer(tensor.data, _NUMPY[tensor.dtype]).reshape(tensor.shape))


def read_npz(source: Path) -> tuple[dict[str, Array], str, int]:
    """Return the arrays, the manifest and the schema. An invalid file raises ValueError."""
    with reading(source) as file:
        with _as_value_errors():
            return _read_members(file, as_array)


def check_npz(source: Path) -> str:
    """Check all bytes against the digest, then return the manifest. An invalid file raises ValueError."""
    with reading(source) as file:
        with _as_value_errors():
            return _read_members(file, lambda tensor: None)[1]


def peek_npz(source: Path) -> str:
    """Return the manifest, without a check of the digest."""
    with reading(source) as file:
        with _as_value_errors(), _open_archive(file) as archive:
            return _read_text(archive, _MANIFEST)


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Convert exceptions to ValueError, because an invalid zip file or numpy header raises many kinds of them.

    An OSError of the system, for example of a failing disk, stays an OSError.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # zipfile reports a failing disk as an invalid archive
            if isinstance(cause, OSError) and cause.errno not in (
                None,
                errno.EINVAL,
            ):  # zipfile may seek before the start
                raise cause from None
            cause = cause.__context__
        raise ValueError(f"it is damaged: {error}") from None


def _read_members(file: BinaryIO, convert: Callable[[Tensor], T]) -> tuple[dict[str, T], str, int]:
    """Read and convert one tensor after another, and return them after the digest is checked."""
    with _open_archive(file) as archive:
        manifest, info = _read_text(archive, _MANIFEST), read_json(_read_text(archive, _INFO))
        check_schema(int(info["schema"]))
        members = {member for _, member, _ in info["tensors"]}
        if len(archive.namelist()) != len(members) + 2 or len(members) != len(info["tensors"]):
            raise ValueError("it has members without a name, or with several names")
        digest, arrays = hashlib.sha256(manifest.encode()), dict[str, T]()
        for dtype, member, name in info["tensors"]:
            tensor = _read_tensor(archive, dtype, member, name)
            _update_digest(digest, name, tensor)
            arrays[name] = convert(tensor)
            del tensor  # free its bytes before the next tensor is read
        if len(arrays) != len(members):
            raise ValueError("several tensors have the same name")
    if digest.hexdigest() != info["sha256"]:
        raise ValueError("its digest differs")
    return arrays, manifest, int(info["schema"])


class _LimitedFile:
    """A file for zipfile that refuses an archive with more members than a checkpoint may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reads_directory = True
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        if self._reads_directory and content.count(_MEMBER) > MOST_TENSORS + 2:
            raise ValueError(f"it has more than {MOST_TENSORS:,} tensors, and that is the limit")
        return content

    def end_directory(self) -> None:
        """State that the directory is read, and that members follow."""
        self._reads_directory = False


def _open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive. Raise ValueError if its members would take more memory than the file has bytes."""
    size = file.seek(0, 2)
    limited = _LimitedFile(file)
    archive = zipfile.ZipFile(limited)
    limited.end_directory()
    members = archive.infolist()
    if (
        any(member.compress_type != zipfile.ZIP_STORED for member in members)
        or sum(m.file_size for m in members) > size
    ):
        raise ValueError("its members are packed, or one stands for another")
    return archive


def _write_member(members: zipfile.ZipFile, name: str, array: Any) -> None:
    import numpy as np

    with members.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _read_text(archive: zipfile.ZipFile, member: str) -> str:
    return str(_read_tensor(archive, "U8", member, member).data, "utf-8")


def _read_tensor(archive: zipfile.ZipFile, dtype: str, member: str, name: str) -> Tensor:
    """Read a member with the header reader of numpy, and check that all its bytes exist."""
    import numpy as np

    content = archive.read(f"{member}.npy")
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"tensor {name!r} is in a format of another version")
    shape, by_columns, kind = np.lib.format.read_array_header_1_0(file, max_header_size=2_000)
    tensor = Tensor(dtype, shape, memoryview(content)[file.tell() :])
    if dtype not in WIDTHS or kind != np.dtype(_NUMPY[dtype]) or by_columns or not _has_all_bytes(tensor):
        raise ValueError(f"tensor {name!r} is no {dtype} of {shape}")
    return tensor


def _has_all_bytes(tensor: Tensor) -> bool:
    return min(tensor.shape, default=0) >= 0 and tensor.fits


def _digest_of_all(tensors: Mapping[str, Tensor], manifest: str) -> str:
    digest = hashlib.sha256(manifest.encode())
    for name, tensor in tensors.items():
        _update_digest(digest, name, tensor)
    return digest.hexdigest()


def _update_digest(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode("utf-8", "surrogatepass"))
    digest.update(tensor.data)


def _needs_escape(name: str) -> bool:
    return not name.isascii() or any(c in name for c in "/\\:\0\n") or name in ("file", _MANIFEST, _INFO)
