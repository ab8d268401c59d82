"""Find the first line of code that computes a value with a property, by tracing lines as a debugger does."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ..core._mlx import mx

__all__ = ["TracedLines"]

_OWN = __name__.partition(".")[0]


class TracedLines:
    """A context in which the lines of functions called between `start` and `stop` are traced.

    At its end the thread has the trace function that it had before, for example that of a debugger.

    Args:
        holds: The property of an array.
    """

    def __init__(self, holds: Callable[[Any], bool]) -> None:
        self._holds, self._before = holds, sys.gettrace()
        self.first = ""
        """The first line that assigned or returned an array with the property, with its file; empty: none did."""

    def __enter__(self) -> TracedLines:
        self._before = sys.gettrace()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Trace the functions that are called from now on."""
        sys.settrace(self._called)

    def stop(self) -> None:
        """Trace no longer."""
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, value: Any) -> Any:
        if self.first or frame.f_globals.get("__name__", "").partition(".")[0] == _OWN:
            return None
        known, line = _local_arrays(frame), frame.f_lineno

        def traced(frame: FrameType, event: str, value: Any) -> Any:
            nonlocal line, known
            now = _local_arrays(frame)
            fresh = [array for key, array in now.items() if key not in known]
            fresh += [value] if event == "return" and isinstance(value, mx.array) and id(value) not in known else []
            if not self.first and any(map(self._holds, fresh)):
                self.first = _line_text(frame, line)
            known, line = now, frame.f_lineno
            return traced

        return traced


def _local_arrays(frame: FrameType) -> dict[int, Any]:
    return {id(value): value for value in frame.f_locals.values() if isinstance(value, mx.array)}


def _line_text(frame: FrameType, line: int) -> str:
    path = frame.f_code.co_filename
    code = linecache.getline(path, line).strip() or f"in {frame.f_code.co_name}"
    return f"{code} ({Path(path).name}:{line})"
