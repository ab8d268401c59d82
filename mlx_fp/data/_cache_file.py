"""The file of `cache(path)`: a safetensors file with the bytes of all rows, one after the other, and their offsets.

The metadata hold the fingerprint of the pipeline, the layout of a row, and a SHA-256 of both and of the offsets. It is
checked when the file is opened. The CRC-32 of a row is checked when the row is read, so opening reads no rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..core._file_lock import lock_file
from ..core._files import make_folder, write_whole
from ..core._regular import open_own_file, reading
from ._dataset import Dataset
from ._row_bytes import decode_row, describe_layout, encode_row
from ._types import Item

__all__ = ["CacheFile", "build_cache", "building"]

_FORMAT = "mlx_fp cache 1"

_EVERY = 5.0
"""Seconds between two lines about the progress of a build."""

_LOG = logging.getLogger("mlx_fp.data")


class CacheFile:
    """An open file of rows. Threads and forks may share it; pickle opens the file again.

    Raises ValueError where the file is no cache, is damaged, or holds the items of another pipeline.
    """

    def __init__(self, path: Path, pipeline: str) -> None:
        self.path, self.pipeline, self._file = path, pipeline, -1
        with reading(path) as file:
            try:
                metadata, self.offsets, self.start = _read_index(file)
                recorded, self.layout = metadata["pipeline"], json.loads(metadata["layout"])
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path} is no cache that can be read: {error}: delete it to build it again") from None
            if recorded != pipeline:
                raise ValueError(_other_pipeline(path, recorded, pipeline))
            self._file = os.dup(file.fileno())

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> Item:
        """Return a row as new objects; ValueError where its bytes are damaged."""
        start, end = self.offsets[index], self.offsets[index + 1]
        try:
            return decode_row(self.layout, _read_at(self._file, end - start, self.start + start))
        except ValueError as error:
            message = f"{self.path} is damaged at row {index}: {error}: delete it to build it again"
            raise ValueError(message) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return CacheFile, (self.path, self.pipeline)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def build_cache(path: Path, dataset: Dataset, pipeline: str) -> None:
    """Read a dataset once, and write its items into a file that appears complete or not at all."""
    write_whole(path, lambda new: _write_rows(new, path, dataset, pipeline))


@contextmanager
def building(path: Path) -> Iterator[None]:
    """Let one process or thread at a time build a file; the others wait here, and find the file then."""
    make_folder(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    lock = open_own_file(lock_path)
    try:
        _wait_for(lock, path)
        try:
            yield
        finally:
            lock_path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _wait_for(lock: int, path: Path) -> None:
    try:
        lock_file(lock)
    except BlockingIOError:
        _LOG.info("waiting for another process or thread, which builds %s", path)
        lock_file(lock, wait=True)


def _write_rows(new: Path, path: Path, dataset: Dataset, pipeline: str) -> None:
    """Write the rows into a file beside the new file, and then both rows and offsets into the new file."""
    from ..core._container import write_container
    from ..core._tensors import Tensor

    layout, offsets = None, array("q", [0])
    started = spoken = time.monotonic()
    spool = new.with_name("rows")
    with open(spool, "wb", buffering=1 << 20) as file, closing(dataset.open()) as rows:
        for index, row in enumerate(rows):
            row_layout, content = encode_row(row)
            if index and row_layout != layout:
                described = f"row {index} is {describe_layout(row_layout)}, row 0 is {describe_layout(layout)}"
                raise ValueError(f"a cache on disk holds rows of one layout: {described}")
            layout = row_layout
            offsets.append(offsets[-1] + file.write(content))
            if time.monotonic() - spoken > _EVERY:
                spoken = time.monotonic()
                size = "" if dataset.size is None else f" of {dataset.size:,}"
                _LOG.info("building %s: %s%s items", path, f"{index + 1:,}", size)
    tensors = {
        "offsets": Tensor("I64", (len(offsets),), memoryview(offsets).cast("B")),
        "rows": Tensor("U8", (offsets[-1],), _mapped(spool)),
    }
    metadata = {"format": _FORMAT, "pipeline": pipeline, "layout": json.dumps(layout)}
    write_container(new, tensors, metadata | {"sha256": _digest(metadata, offsets)})
    _LOG.info("built %s: %s items, %.1f s", path, f"{len(offsets) - 1:,}", time.monotonic() - started)


def _mapped(path: Path) -> memoryview:
    """Return the bytes of a file without reading them into memory."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def _read_index(file: BinaryIO) -> tuple[dict[str, str], array[int], int]:
    """Return the metadata, the offsets of the rows, and the place of the first row, after a check of all of these."""
    from ..core._container import read_places

    metadata, places = read_places(file)
    if metadata.get("format") != _FORMAT or places.keys() != {"offsets", "rows"}:
        raise ValueError(f"its format is not {_FORMAT!r}")
    file.seek(places["offsets"].start)
    offsets = array("q", file.read(len(places["offsets"])))
    recorded = metadata.pop("sha256", "")
    if _digest(metadata, offsets) != recorded or offsets[-1] != len(places["rows"]):
        raise ValueError("it is damaged: its digest differs")
    return metadata, offsets, places["rows"].start


def _digest(metadata: dict[str, str], offsets: array[int]) -> str:
    text = json.dumps(metadata, sort_keys=True)
    return hashlib.sha256(text.encode() + offsets.tobytes()).hexdigest()


def _read_at(file: int, size: int, position: int) -> bytes:
    """Read bytes at a position of an open file, which has no position of its own for this."""
    content = os.pread(file, size, position)
    while len(content) < size and (more := os.pread(file, size - len(content), position + len(content))):
        content += more
    return content


def _other_pipeline(path: Path, recorded: str, pipeline: str) -> str:
    """Return the message for the file of another pipeline, with the first line that differs."""
    theirs, ours = recorded.split("\n"), pipeline.split("\n")
    shared = sum(1 for _ in _common(theirs, ours))
    pair = [(lines[shared : shared + 1] or ["its end"])[0].strip() for lines in (theirs, ours)]
    return (
        f"{path} holds the items of another pipeline: {pair[0]!r} there, {pair[1]!r} here: delete the file to build it "
        "again, or give this pipeline a path of its own"
    )


def _common(theirs: list[str], ours: list[str]) -> Iterator[str]:
    for one, other in zip(theirs, ours, strict=False):
        if one != other:
            return
        yield one
