"""The file `steps.jsonl` of a run: one JSON object in a line for each logged step, in the order of the steps."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..core._files import make_folder
from ..core._regular import open_own_file, reading

__all__ = ["StepsFile", "read_steps"]

_SECONDS = 0.5
"""The longest time that a row waits in memory while other rows follow it."""

_NON_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}

_LOG = logging.getLogger("mlx_fp.store")

_name = lru_cache(json.dumps)
"""The name of a figure in JSON."""


class StepsFile:
    """Append rows to a file. The file holds whole lines at every instant.

    Rows are collected for half a second, because a step of a small model takes less time than a write, and because the
    rows of half a second take a third of the time of single rows. A write that fails, for example on a full disk, is
    logged, and is tried again with the next rows.

    >>> import tempfile
    >>> file = StepsFile(Path(tempfile.mkdtemp()) / "steps.jsonl")
    >>> file.open(0)
    >>> for step in (1, 2, 3):
    ...     file.append({"step": step, "loss": 0.5}.copy)
    >>> file.close()
    >>> file.open(2)  # a run that continues from step 2
    >>> file.close()
    >>> read_steps(file.path)
    [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.5}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._rows: list[Callable[[], Mapping[str, object]]] = []
        self._flushed = 0.0
        self._failed = False

    def open(self, step: int) -> None:
        """Open the file. Keep its rows up to a step, and delete later rows and an incomplete last line."""
        make_folder(self.path.parent)
        file = open_own_file(self.path)
        try:
            os.ftruncate(file, _size_up_to(self.path, step))
            os.lseek(file, 0, os.SEEK_END)
        except BaseException:
            os.close(file)
            raise
        self._file, self._flushed = file, time.perf_counter()

    def append(self, row: Callable[[], Mapping[str, object]]) -> None:
        """Append the row that a function returns. It is called when the row is written.

        The row is on disk after `flush`, after `close`, or half a second later with the next row.
        """
        self._rows.append(row)
        if time.perf_counter() - self._flushed > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the collected rows."""
        self._flushed = time.perf_counter()
        if self._file is None or not self._rows:
            return
        size = os.fstat(self._file).st_size
        try:
            _write_all(self._file, "".join([_row_line(row()) for row in self._rows]).encode())
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._file, size)
                os.lseek(self._file, 0, os.SEEK_END)
            if not isinstance(error, OSError):
                raise
            if not self._failed:
                _LOG.warning("%s could not be written, and is tried again with the next rows: %s", self.path, error)
            self._failed = True
            return
        self._rows.clear()

    def close(self) -> None:
        """Write the collected rows, and close the file."""
        if self._file is not None:
            try:
                self.flush()
            finally:
                os.close(self._file)
                self._file = None


def read_steps(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of a file of logged steps. A missing file has none, and an incomplete last line is left out.

    Args:
        path: The file.

    Returns:
        A dict for each row, with the names of `StepRow.to_dict`.

    Raises:
        ValueError: A line is no JSON object; the message names the file and the line.
    """
    source = Path(path)
    if not source.exists():
        return []
    rows = []
    for number, line in enumerate(_whole_lines(source), 1):
        try:
            row = json.loads(line)
            rows.append({name: _NON_FINITE.get(value, value) for name, value in row.items()})
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(f"line {number} of {os.fspath(path)} is no logged step: {error}") from None
    return rows


def _size_up_to(path: Path, step: int) -> int:
    """Return the size of the part of a file that holds the rows up to a step."""
    lines = _whole_lines(path) if step else []
    while lines and not _is_up_to(lines[-1], step):
        lines.pop()
    return sum(len(line) + 1 for line in lines)


def _is_up_to(line: bytes, step: int) -> bool:
    """Tell whether a line is a row of a step up to `step`."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _whole_lines(path: Path) -> list[bytes]:
    with reading(path) as file:
        return file.read().split(b"\n")[:-1]


def _write_all(file: int, content: bytes) -> None:
    """Write all bytes, because the system may write a part of them."""
    while content:
        content = content[os.write(file, content) :]


def _row_line(row: Mapping[str, object]) -> str:
    """Return the line of a row. This takes half the time of `json.dumps`.

    >>> _row_line({"step": 3, "loss": 0.5, "grad_norm": float("inf"), "tokens_per_second": None})
    '{"step":3,"loss":0.5,"grad_norm":"inf","tokens_per_second":null}\\n'
    """
    return "{" + ",".join([f"{_name(name)}:{_json_value(value)}" for name, value in row.items()]) + "}\n"


def _json_value(value: object) -> str:
    """Return a value in JSON. A number that is not finite is the text nan, inf or -inf."""
    if type(value) is float:
        return repr(value) if value - value == 0 else f'"{value}"'
    if type(value) is int:
        return repr(value)
    return "null" if value is None else json.dumps(value)
