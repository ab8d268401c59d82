"""HTML for notebooks: tables and small curves that fit light and dark pages. There is no script in it."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

__all__ = ["html_table", "sparkline"]

_WIDTH, _HEIGHT, _MARGIN = 240, 48, 2

_TABLE = "border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: pre-wrap"
_LINE = "border-bottom: 1px solid rgba(128, 128, 128, 0.35)"
_CELL = "padding: 0.15em 0.8em; vertical-align: top"


def html_table(rows: Sequence[Sequence[object]], *, left: int = 1, caption: str = "") -> str:
    """Return a table of HTML. The first row holds the heads of the columns.

    Args:
        rows: Rows of cells. Their texts are escaped.
        left: The number of columns at the left that are aligned to the left. The others are aligned to the right.
        caption: The title of the table; "" for none.

    Returns:
        The HTML. It sets no colours, so that the table has those of the page.

    >>> html_table([["name"], ["<b>"]]).count("&lt;b&gt;")
    1
    """

    from html import escape  # a late import: a layer can show itself as HTML, and most never do

    def cell(tag: str, column: int, value: object) -> str:
        side = "left" if column < left else "right"
        scope = ' scope="col"' if tag == "th" else ""
        return f'<{tag}{scope} style="{_CELL}; text-align: {side}">{escape(str(value))}</{tag}>'

    def line(tag: str, row: Sequence[object]) -> str:
        cells = "".join(cell(tag, column, value) for column, value in enumerate(row))
        return f'<tr style="{_LINE}">{cells}</tr>'

    head, *body = rows
    title = f'<caption style="text-align: left">{escape(caption)}</caption>' if caption else ""
    lines = "".join(line("td", row) for row in body)
    return f'<table style="{_TABLE}">{title}<thead>{line("th", head)}</thead><tbody>{lines}</tbody></table>'


def sparkline(values: Sequence[float], *, title: str) -> str:
    """Return a small curve as inline SVG, in the colour of the text; "" for fewer than two finite values.

    Args:
        values: The values, in order. A value that is not finite leaves a gap.
        title: The text that a pointer over the curve shows, and that is read aloud.

    >>> sparkline([1.0, 0.5], title="loss").count("<polyline")
    1
    """
    from html import escape

    finite = [value for value in values if isfinite(value)]
    if len(finite) < 2:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    across, down = (_WIDTH - 2 * _MARGIN) / (len(values) - 1), _HEIGHT - 2 * _MARGIN
    points = [
        f"{_MARGIN + i * across:.1f},{_MARGIN + down * (1 - (value - low) / span):.1f}" if isfinite(value) else ""
        for i, value in enumerate(values)
    ]
    pieces = [piece.strip() for piece in " ".join(point or "|" for point in points).split("|")]
    lines = "".join(
        f'<polyline points="{piece}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        for piece in pieces
        if " " in piece
    )
    return (
        f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f"<title>{escape(title)}</title>{lines}</svg>"
    )
