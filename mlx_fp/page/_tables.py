"""Tables of the page: columns of aligned numbers and escaped texts, under a caption."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ._words import column_text, safe

__all__ = ["MOST_ROWS", "Column", "chosen", "figures", "table", "tag", "texts"]

MOST_ROWS = 200
"""The largest number of rows of a table."""

_TALL = 30
"""The number of rows beyond which a table scrolls."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, and its cells as HTML."""

    head: str
    cells: Sequence[str]
    kind: str = ""
    """"n" for aligned numbers, "wide" for long texts."""


def texts(head: str, values: Sequence[object], kind: str = "") -> Column:
    """Return a column of escaped texts."""
    return Column(head, ["" if value is None else safe(value) for value in values], kind)


def figures(head: str, values: Sequence[float | None], decimals: int = 4) -> Column:
    """Return a column of numbers in one notation."""
    return Column(head, [safe(text) for text in column_text(values, decimals)], "n")


def tag(text: str, kind: str = "") -> str:
    """Return a short word in a frame."""
    return f'<span class="tag {kind}">{safe(text)}</span>'


def chosen(count: int, always: Collection[int] = (), most: int = MOST_ROWS) -> list[int]:
    """Return the indices of the rows that a table shows: at equal distances, with some that are always there.

    >>> chosen(10, most=4), chosen(10, [5], most=2)
    ([0, 3, 6, 9], [0, 5, 9])
    """
    if count <= most:
        return list(range(count))
    even = (round(number * (count - 1) / (most - 1)) for number in range(most))
    return sorted({*even, *(index for index in always if 0 <= index < count)})


def table(
    caption: str,
    columns: Sequence[Column],
    *,
    marked: Mapping[int, str] | None = None,
    left_out: int = 0,
    kind: str = "",
) -> str:
    """Return a table in a frame that scrolls. The first column has the heads of the rows.

    Args:
        caption: The text above the table.
        columns: The columns, all of one length.
        marked: CSS classes of rows by their index.
        left_out: The number of rows that the table does not show.
        kind: The CSS class of the table.

    >>> print(table("two", [texts("name", ["a<b"]), figures("loss", [0.5])]))  # doctest: +ELLIPSIS
    <div class="scroll" ...><th scope="row" dir="auto">a&lt;b</th><td class="n">0.5000</td></tr></tbody></table></div>
    """
    heads = "".join(
        f'<th scope="col"{_class(column)} dir="auto"><span>{safe(column.head)}</span></th>' for column in columns
    )
    rows = []
    for index, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        row = "".join(
            _cell(column, cell, first=number == 0)
            for number, (column, cell) in enumerate(zip(columns, cells, strict=True))
        )
        look = (marked or {}).get(index)
        rows.append(f'<tr class="{look}">{row}</tr>' if look else f"<tr>{row}</tr>")
    rest = f" {left_out:,} rows are left out." if left_out else ""
    above = f'<caption dir="auto">{safe(caption)}{rest}</caption><thead><tr>{heads}</tr></thead>'
    look = f' class="{kind}"' if kind else ""
    tall = " tall" if len(rows) > _TALL else ""
    frame = f'<div class="scroll{tall}" role="region" aria-label="{safe(caption)}" tabindex="0">'
    return f"{frame}<table{look}>{above}<tbody>{''.join(rows)}</tbody></table></div>"


def _cell(column: Column, cell: str, *, first: bool) -> str:
    direction = "" if column.kind == "n" else ' dir="auto"'
    return (
        f'<th scope="row"{_class(column)}{direction}>{cell}</th>'
        if first
        else f"<td{_class(column)}{direction}>{cell}</td>"
    )


def _class(column: Column) -> str:
    return f' class="{column.kind}"' if column.kind else ""
