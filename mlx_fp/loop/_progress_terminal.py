"""Progress as a bar on a terminal, drawn by rich. Notes are lines above it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from ._progress_line import Line, Note
from ._report import Report

__all__ = ["Terminal"]

_PER_SECOND = 10
"""How often a thread of rich draws the line."""


class Terminal:
    """Draw the line of the present moment at the bottom of a terminal. It goes away at the end of the run."""

    logged = False

    def __init__(self, read: Callable[[], Line]) -> None:
        from rich import get_console
        from rich.live import Live

        console = get_console()
        self.live = Live(
            console=console,
            get_renderable=lambda: _drawn(read(), console.width),
            refresh_per_second=_PER_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def note(self, note: Note) -> None:
        """Print a line above the bar."""
        from rich.text import Text

        self.live.console.print(Text(str(note)))

    def refresh(self) -> None:
        """Draw the line now."""
        self.live.refresh()

    def finish(self, report: Report) -> None:
        """Draw nothing more: the notes say how the run ended."""


def _drawn(line: Line, width: int) -> Any:
    """Return a row of rich: name, bar, count, figures. Figures that find no room are below the row."""
    from rich.cells import cell_len
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    figures = "  ".join(line.figures)
    bar = ProgressBar(total=line.total or None, completed=line.done, width=_WIDTH)
    cells: list[Any] = [Text(line.name), bar, Text(line.counted, "progress.download")]
    fits = cell_len(line.name) + _WIDTH + cell_len(line.counted) + cell_len(figures) + 2 * len(cells) <= width
    row = Table.grid(padding=(0, 1))
    row.add_row(*cells, *([Text(figures)] if fits else []))
    return row if fits else Group(row, Text(figures))


_WIDTH = 24
"""Characters of the bar."""
