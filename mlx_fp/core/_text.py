"""Plain text tables."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lay out rows of text in columns. The first `left` columns are aligned to the left, the others to the right.

    >>> print(table([("name", "count"), ("weight", "40"), ("bias", "8")]))
    name    count
    weight     40
    bias        8
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines.append("  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(cells)).rstrip())
    return "\n".join(lines)
