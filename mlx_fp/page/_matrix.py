"""Figures that are no single number: a confusion matrix as a table of shades, other values as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ._runs import Run
from ._words import as_number, safe, setting_text

__all__ = ["figures_of_row", "is_square", "shown_row"]

_MOST_CLASSES = 40


def is_square(value: object) -> TypeGuard[Sequence[Sequence[object]]]:
    """Tell whether a figure is a matrix of pairs of classes.

    >>> is_square([[3.0, 1.0], [0.0, 4.0]]), is_square([1.0, 2.0]), is_square([[1.0]])
    (True, False, False)
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < 2:
        return False
    return all(
        isinstance(row, Sequence) and len(row) == len(value) and all(as_number(c) is not None for c in row)
        for row in value
    )


def shown_row(run: Run) -> Mapping[str, Any]:
    """Return the row of the best epoch; the last row where no epoch is the best."""
    rows = run.listed("rows")
    best = run.report.get("best_epoch")
    return next((row for row in rows if best is not None and row.get("epoch") == best), rows[-1] if rows else {})


def figures_of_row(row: Mapping[str, Any]) -> str:
    """Return the matrices and the lists among the figures of a row as HTML, those of validation first."""
    found = {name: value for name, value in row.items() if isinstance(value, (list, tuple, dict))}
    names = sorted(found, key=lambda name: not name.startswith("val_"))
    parts = [_figure(name, found[name]) for name in names]
    return f'<div class="two">{"".join(parts)}</div>' if parts else ""


def _figure(name: str, value: object) -> str:
    return _matrix(name, value) if is_square(value) else _text(name, value)


def _text(name: str, value: object) -> str:
    return f'<div><h3 dir="auto">{safe(name)}</h3><p><code>{safe(setting_text(value)[:2000])}</code></p></div>'


def _matrix(name: str, rows: Sequence[Sequence[object]]) -> str:
    """Return a table with a shade for the share of each label: rows are labels, columns are predictions."""
    if len(rows) > _MOST_CLASSES:
        return _text(name, f"{len(rows)} by {len(rows)} counts, which are in the bundle of the run")
    heads = "".join(f'<th scope="col" class="n">{index}</th>' for index in range(len(rows)))
    body = "".join(_matrix_row(index, [as_number(cell) or 0.0 for cell in row]) for index, row in enumerate(rows))
    head = f'<thead><tr><th scope="col">label</th>{heads}<th scope="col" class="n">right</th></tr></thead>'
    caption = "<caption>rows: labels, columns: predictions</caption>"
    table = f'<table class="matrix">{caption}{head}<tbody>{body}</tbody></table>'
    frame = f'<div class="scroll" role="region" aria-label="{safe(name)}" tabindex="0">{table}</div>'
    return f'<div><h3 dir="auto">{safe(name)}</h3>{frame}</div>'


def _matrix_row(index: int, counts: Sequence[float]) -> str:
    total = sum(counts)
    cells = "".join(_matrix_cell(count, count / total if total > 0 else 0.0) for count in counts)
    right = f"{counts[index] / total:.1%}" if total > 0 else ""
    return f'<tr><th scope="row">{index}</th>{cells}<td class="n">{right}</td></tr>'


def _matrix_cell(count: float, share: float) -> str:
    if not 0 <= share <= 1:
        return f'<td class="n">{count:,.6g}</td>'
    look = "n hot" if share > 0.5 else "n"
    shade = 0.55 + 0.45 * share if share > 0.5 else 0.6 * share
    return f'<td class="{look}" style="background:rgba(var(--heat),{shade:.3f})">{count:,.6g}</td>'
