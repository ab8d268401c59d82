"""The tracker that writes a CSV file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from ..core._errors import named_error
from ..core._files import write_whole
from ..core._user_path import user_path
from ._tracker import TrackedRun

__all__ = ["CsvTracker"]

Cells = Mapping[str, object]
"""The cells of a row by the names of their columns."""


class CsvTracker:
    """Write a row for each call of `log`, and the settings and the end of the run into a JSON file beside it.

    A new figure is a new column: the file is then written again, whole.
    """

    def __init__(self, *, path: str | os.PathLike[str] | None = None) -> None:
        """Make a tracker.

        Args:
            path: The file. None: `figures.csv` in the folder of the checkpoints, or else in a folder of the run.
        """
        self._given = None if path is None else user_path(path)
        self._path = Path()
        self._columns: list[str] = []
        self._known: frozenset[str] = frozenset()
        self._file: TextIO | None = None
        self._about: dict[str, object] = {}

    def start(self, run: TrackedRun) -> str:
        """Begin a file. A resumed run goes on in its file, without the rows after the step from which it goes on."""
        before = None if run.id is None else Path(run.id)
        default = before if before is not None and before.exists() else run.place / "figures.csv"
        self._path = default if self._given is None else self._given
        rows = [] if run.id is None else [row for row in _rows_of(self._path) if int(row["step"]) <= run.step]
        self._write(["step", *(name for name in (rows[0] if rows else {}) if name != "step")], rows)
        self._about = {"run": run.name, "settings": dict(run.settings), "artifacts": [], "stop_reason": None}
        self._describe()
        return os.path.abspath(self._path)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a row."""
        if not figures.keys() <= self._known:
            self._write([*self._columns, *(name for name in figures if name not in self._known)], _rows_of(self._path))
        assert self._file is not None
        self._file.write(_csv_line([step, *(figures.get(name, "") for name in self._columns[1:])]))

    def artifact(self, path: str) -> None:
        """Add a path to the list of files."""
        self._about["artifacts"] = [*self._about["artifacts"], path]  # type: ignore[misc]  # a list of paths
        self._describe()

    def finish(self, reason: str | BaseException | None) -> None:
        """Close the file, and write the reason of the end."""
        if self._file is not None:
            self._file.close()
        failed = isinstance(reason, BaseException)
        self._about |= {"stop_reason": named_error(reason) if isinstance(reason, BaseException) else reason}
        self._about |= {"failed": failed}
        self._describe()

    def _write(self, columns: list[str], rows: Iterable[Cells]) -> None:
        """Write the file with these columns and rows, and open it for more rows."""
        lines = [_csv_line(columns), *(_csv_line([row.get(name, "") for name in columns]) for row in rows)]
        if self._file is not None:
            self._file.close()
        write_whole(self._path, "".join(lines).encode())
        self._columns, self._known = columns, frozenset(columns)
        self._file = self._path.open("a", encoding="utf-8", newline="", buffering=1)  # each line is a write of its own

    def _describe(self) -> None:
        """Write the JSON file."""
        write_whole(self._path.with_suffix(".json"), json.dumps(self._about, indent=2).encode())


def _csv_line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _rows_of(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a file; none where there is no file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
