"""The times of the operations of a step: a table, and a trace that browsers show."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core._files import write_whole
from ..core._html import html_table
from ..core._text import count_text, table

__all__ = ["OTHERS", "OUTSIDE", "Profile", "TimeShare", "TimedCall", "rows_of"]

OTHERS = "others"
"""The name of the row of the operations that cannot be computed alone."""

OUTSIDE = "loss, gradients, update"
"""The part of the operations that are not in the forward pass of the model."""

_HEAD = ("calls", "ms", "share")


@dataclass(frozen=True, slots=True)
class TimeShare:
    """The time of all calls of an operation, or of all operations of a part."""

    name: str
    calls: int
    milliseconds: float
    share: float
    """The part of the sum over all rows, between 0 and 1."""


@dataclass(frozen=True, slots=True)
class TimedCall:
    """One operation of a step, with the shapes of its arrays as text."""

    name: str
    part: str
    milliseconds: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The times of the operations of a step. `str()` is a table. `profile` makes it.

    - `rows` has a row for each operation of MLX, with `name`, `calls`, `milliseconds` and `share`; the largest first.
    - `parts` has such a row for the forward pass of each innermost part of the model, and one for all other operations.
    - `calls` has the operations in the order of their computation.
    - `milliseconds` is the sum of the times of all operations.
    - `plain` is the time of the uncompiled step in milliseconds, and `compiled` that of the compiled one.
    - `others` has the names of the operations that cannot be computed alone. They share the row `others`.
    - `device` is the device of MLX.
    """

    rows: tuple[TimeShare, ...]
    parts: tuple[TimeShare, ...]
    calls: tuple[TimedCall, ...]
    plain: float
    compiled: float
    others: tuple[str, ...]
    device: str

    @property
    def milliseconds(self) -> float:
        """The sum of the times of all operations."""
        return sum(row.milliseconds for row in self.rows)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a trace in the format of Chrome, whole or not at all, and return its path.

        `chrome://tracing` and https://ui.perfetto.dev show the file. Each operation begins at the end of the previous
        one.

        Args:
            path: The file, for example `trace.json`. A leading `~` is the home folder of the user.
        """
        trace = {"traceEvents": [*_name_events(self.device), *_events(self.calls)], "displayTimeUnit": "ms"}
        return write_whole(path, json.dumps(trace).encode())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the rows, and the times of the whole step."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "parts": [asdict(row) for row in self.parts],
            "milliseconds": self.milliseconds,
            "plain": self.plain,
            "compiled": self.compiled,
            "others": list(self.others),
            "device": self.device,
        }

    def __str__(self) -> str:
        return "\n".join(
            [table(_with_sum("operation", self.rows)), "", table(_with_sum("part", self.parts)), "", *self._notes()]
        )

    def _repr_html_(self) -> str:
        operations = html_table(_with_sum("operation", self.rows), caption=" ".join(self._notes()))
        return operations + html_table(_with_sum("part", self.parts))

    def _notes(self) -> list[str]:
        notes = [
            f"The compiled step takes {self.compiled:.3g} ms, and the uncompiled one {self.plain:.3g} ms.",
            "Compilation fuses operations, so a compiled step may take less than the sum of its operations.",
        ]
        others = f"{OTHERS}: {', '.join(self.others)}, as the rest of the time of the uncompiled step."
        return [*notes, others] if self.others else notes


def rows_of(times: Iterable[tuple[str, int, float]]) -> tuple[TimeShare, ...]:
    """Add up `(name, calls, milliseconds)` by name, and return the rows with their shares, the largest first.

    >>> [(row.name, row.calls, row.share) for row in rows_of([("Add", 1, 1.0), ("Exp", 1, 6.0), ("Add", 1, 1.0)])]
    [('Exp', 1, 0.75), ('Add', 2, 0.25)]
    """
    sums: dict[str, tuple[int, float]] = {}
    for name, calls, milliseconds in times:
        before = sums.get(name, (0, 0.0))
        sums[name] = before[0] + calls, before[1] + milliseconds
    total = sum(milliseconds for _, milliseconds in sums.values()) or 1.0
    rows = [TimeShare(name, calls, value, value / total) for name, (calls, value) in sums.items()]
    return tuple(sorted(rows, key=lambda row: (-row.milliseconds, row.name)))


def _with_sum(name: str, rows: Sequence[TimeShare]) -> list[tuple[str, str, str, str]]:
    total = TimeShare("sum", sum(row.calls for row in rows), sum(row.milliseconds for row in rows), 1.0)
    return [(name, *_HEAD), *map(_line, (*rows, total))]


def _line(row: TimeShare) -> tuple[str, str, str, str]:
    return row.name, count_text(row.calls), f"{row.milliseconds:.3f}", f"{row.share:.1%}"


def _name_events(device: str) -> list[dict[str, Any]]:
    """Return the events that name the process and the thread of a trace."""
    texts = {"process_name": "mlx_fp", "thread_name": device}
    return [{"name": key, "ph": "M", "pid": 0, "tid": 0, "args": {"name": text}} for key, text in texts.items()]


def _events(calls: Sequence[TimedCall]) -> list[dict[str, Any]]:
    """Return an event for each operation, in microseconds."""
    events, start = [], 0.0
    for call in calls:
        duration = 1e3 * call.milliseconds
        arrays = {"part": call.part, "inputs": list(call.inputs), "outputs": list(call.outputs)}
        place = {"ph": "X", "pid": 0, "tid": 0, "ts": start, "dur": duration}
        events.append({"name": call.name, "cat": "operation", **place, "args": arrays})
        start += duration
    return events
