"""Text for messages: tables, counts, shapes, and the names of dtypes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["count_text", "dtype_name", "shape_text", "table"]


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


def dtype_name(dtype: object) -> str:
    """Return the name of a dtype of MLX, as messages show it.

    >>> from mlx_fp.core._mlx import mx
    >>> dtype_name(mx.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("mlx.core.")


def count_text(count: int | None) -> str:
    """Write a count with separators; "?" for one that is not known.

    >>> count_text(1200), count_text(None)
    ('1,200', '?')
    """
    return "?" if count is None else f"{count:,}"


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape; "()" for that of a scalar.

    >>> shape_text((2, 3)), shape_text(())
    ('2×3', '()')
    """
    return "×".join(map(str, shape)) or "()"
