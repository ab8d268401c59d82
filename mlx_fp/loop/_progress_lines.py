"""Progress as plain lines, for an output that is no terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from ._progress_line import Line, Note
from ._report import Report

__all__ = ["Lines"]


class Lines:
    """Print each note as a line."""

    logged = True

    def __init__(self, read: Callable[[], Line]) -> None:
        self.read = read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the output as it is."""

    def note(self, note: Note) -> None:
        """Print a line."""
        print(note, flush=True)

    def refresh(self) -> None:
        """Print nothing: a line of the present moment does not stay."""

    def finish(self, report: Report) -> None:
        """Print nothing: the notes say how the run ended."""
