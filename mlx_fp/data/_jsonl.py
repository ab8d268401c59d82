"""Rows of JSON-lines files: the places of the lines are found once, and a line is read and parsed when it is needed."""

from __future__ import annotations

import io
import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from ..core._files import file_sha256
from ..core._user_path import user_path
from ._call_text import call_text
from ._dataset import Dataset, Source
from ._types import Item
from ._view import View, pick_by

__all__ = ["jsonl"]

_BOM = b"\xef\xbb\xbf"
"""The mark that some programs write before UTF-8 text."""

_BUFFER = 1 << 20
"""Bytes that the search for lines reads at once."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of one file that are not blank: the offset of each, the size of the file, and its time in ns."""

    path: Path
    starts: array[int]
    size: int
    time: int

    def __len__(self) -> int:
        return len(self.starts)


def jsonl(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Dataset:
    """Return the dataset of the lines of JSON-lines files, https://jsonlines.org.

    The files are read once here, for the offsets of the lines: eight bytes of memory for each line. A line is read and
    parsed only when its row is needed, so `shuffle`, `take`, `split` and `batch` work on indices. Blank lines are left
    out. The text is UTF-8, with or without a byte order mark.

    Args:
        paths: A file or several, whose rows follow one another. `~` is the home folder of the user.

    Raises:
        TypeError: `paths` holds an object that is no path.
        ValueError: There is no file. When the data are read: a line is no JSON, and the message has the file and the
            number of the line; or a file has changed since the dataset was made.
        OSError: A file cannot be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "chat.jsonl"
    >>> _ = path.write_text('{"text": "one"}\\n\\n{"text": "two"}\\n')
    >>> rows = jsonl(path)
    >>> len(rows), list(rows)
    (2, [{'text': 'one'}, {'text': 'two'}])
    """
    names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths) if isinstance(paths, Iterable) else None
    if names is None or not all(isinstance(name, (str, os.PathLike)) for name in names):
        raise TypeError(f"jsonl takes a path or a list of paths; got {paths!r}")
    if not names:
        raise ValueError("jsonl takes at least one file; got an empty list")
    files = [_find_lines(user_path(name)) for name in names]
    texts = [os.fspath(name) for name in names]
    view = _view(files)
    return Dataset(
        Source(
            call_text("jsonl", texts[0] if len(texts) == 1 else texts),
            len(view),
            view=lambda epoch_read: view,
            fingerprint=lambda: " ".join(file_sha256(file.path) for file in files),
        )
    )


def _find_lines(path: Path) -> _Lines:
    """Read a file once, and return the offsets of its lines."""
    starts = array("q")
    with open(path, "rb", buffering=_BUFFER) as file:
        status = os.fstat(file.fileno())
        offset = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        file.seek(offset)
        for line in file:
            if not line.isspace():
                starts.append(offset)
            offset += len(line)
    return _Lines(path, starts, status.st_size, status.st_mtime_ns)


def _view(files: Sequence[_Lines]) -> View:
    ends = list(accumulate(map(len, files)))

    def row(index: int) -> Item:
        number = bisect_right(ends, index)
        lines = files[number]
        with _open(lines) as file:
            return _read_row(file, lines, index - ends[number] + len(lines))

    return View(range(ends[-1]), pick_by(row), row)


def _open(lines: _Lines) -> io.FileIO:
    """Open a file for one read, so that threads and processes share no position; ValueError if it has changed."""
    file = io.FileIO(lines.path)
    status = os.fstat(file.fileno())
    if (status.st_size, status.st_mtime_ns) != (lines.size, lines.time):
        file.close()
        raise ValueError(f"{lines.path} has changed since jsonl found its lines: make the dataset again")
    return file


def _read_row(file: io.FileIO, lines: _Lines, number: int) -> Item:
    """Parse a line; the blank lines behind it are read with it, and ignored."""
    start = lines.starts[number]
    end = lines.starts[number + 1] if number + 1 < len(lines) else lines.size
    file.seek(start)
    content = b"".join(_chunks(file, end - start))
    try:
        return json.loads(content.strip().decode("utf-8"))
    except ValueError as error:
        problem = "is no UTF-8" if isinstance(error, UnicodeDecodeError) else "is no JSON"
        raise ValueError(f"{lines.path}, line {_line_number(file, start)}, {problem}: {error}") from None


def _chunks(file: io.FileIO, size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(size)):
        yield chunk
        size -= len(chunk)


def _line_number(file: io.FileIO, offset: int) -> int:
    """Return the number of the line at an offset, from 1."""
    file.seek(0)
    count, left = 1, offset
    while left and (chunk := file.read(min(left, _BUFFER))):
        count, left = count + chunk.count(b"\n"), left - len(chunk)
    return count
