"""Progress in a notebook: HTML that updates in place, without widgets and without scripts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from ..core._html import html_table
from ..core._threads import begin_thread
from ._progress_line import Line, Note, figure_text
from ._report import Report

__all__ = ["Notebook", "in_notebook"]

_SECONDS = 0.5
"""Seconds between two updates of the page."""

_NOTES = 25
"""The number of newest notes that are shown."""


def in_notebook() -> bool:
    """Tell whether a kernel of Jupyter runs this program. IPython is not imported for this.

    >>> in_notebook()
    False
    """
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None


class Notebook:
    """Show the line of the present moment and the newest notes below a cell. At the end the report takes their place.

    A thread updates the page, because a step that compiles keeps the main thread busy.
    """

    logged = False

    def __init__(self, read: Callable[[], Line]) -> None:
        self.read, self.notes = read, list[Note]()
        self.ended, self.handles = threading.Event(), list[Any]()
        self.thread = threading.Thread(target=self._follow, name="mlx_fp-progress", daemon=True)

    def __enter__(self) -> Self:
        from IPython.display import HTML, display

        self.handles.append(display(HTML(_notebook_page(self.read(), self.notes)), display_id=True))
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the updates. A run that an error ended leaves its notes."""
        if not self.ended.is_set():
            self._stop()
            kind = error[0]
            end = [Note(f"ended by {kind.__name__}")] if isinstance(kind, type) else []
            self._update(_notebook_page(None, [*self.notes, *end]))

    def note(self, note: Note) -> None:
        """Add a row to the table of notes."""
        self.notes.append(note)

    def refresh(self) -> None:
        """Leave it to the thread: a page that updates more often is no easier to read."""

    def finish(self, report: Report) -> None:
        """Show the report."""
        self._stop()
        self._update(report._repr_html_())

    def _follow(self) -> None:
        begin_thread()
        while not self.ended.wait(_SECONDS):
            self._update(_notebook_page(self.read(), self.notes))

    def _stop(self) -> None:
        self.ended.set()
        self.thread.join()

    def _update(self, page: str) -> None:
        from IPython.display import HTML

        for handle in self.handles:
            handle.update(HTML(page))


def _notebook_page(line: Line | None, notes: Sequence[Note]) -> str:
    """Return the HTML of a moment: the table of the newest notes, and below it a bar and the figures of the line."""
    notes = notes[-_NOTES:]
    names = list(dict.fromkeys(name for note in notes for name in note.figures))
    head = ["", *names, ""]
    rows = [
        [note.start, *(figure_text(note.figures[n]) if n in note.figures else "" for n in names), note.more]
        for note in notes
    ]
    table = html_table([head, *rows]) if notes else ""
    if line is None:
        return f"<div>{table}</div>"
    total = "" if line.total is None else f' value="{line.done}" max="{max(line.total, 1)}"'
    from html import escape  # a late import: most runs are in no notebook

    text = " &nbsp;".join(escape(each) for each in (line.counted, *line.figures))
    return f"<div>{table}<div>{escape(line.name)} <progress{total}></progress> {text}</div></div>"
