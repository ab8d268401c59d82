"""Tables of columns, which a number does not index by row: pandas', polars', pyarrow's and their like."""

from __future__ import annotations

from typing import Any

__all__ = ["refuse_table"]

_CALLS = {
    "to_pylist": "to_pylist()",  # pyarrow: tables, and arrays of scalars of its own
    "to_dicts": "to_dicts()",  # polars
    "collect_schema": "collect().to_dicts()",  # polars, lazy
}
"""What gives rows, by an attribute that tells the kind of table."""

_FORMATS = ("arrow", "pandas", "polars")
"""The formats of a Hugging Face dataset whose rows are tables."""


def refuse_table(what: str, given: Any, *, iterated: bool = False) -> None:
    """Raise TypeError for a table or a labelled column, and say how to get its rows by position.

    Where it is `iterated`, a labelled column passes, because that gives its values in order.

    >>> refuse_table("source", [1, 2])
    >>> class Frame:
    ...     columns, to_dicts = ["x"], list
    >>> refuse_table("source", Frame())
    Traceback (most recent call last):
    TypeError: source takes rows by position, and a Frame is no such sequence: write table.to_dicts()
    """
    form = getattr(given, "format", None)
    if isinstance(form, dict) and form.get("type") in _FORMATS:  # a Hugging Face dataset
        raise TypeError(f"{what}: rows in the format {form['type']!r} are tables: write .with_format(None)")
    remedy = _remedy(given, iterated)
    if remedy:
        kind = type(given).__name__
        raise TypeError(f"{what} takes rows by position, and a {kind} is no such sequence: write {remedy}")


def _remedy(given: Any, iterated: bool) -> str:
    """Return the code to write in place of a table, empty for anything else."""
    kind = type(given)
    if hasattr(kind, "iloc"):  # pandas, and what has its interface
        if hasattr(kind, "columns"):
            return 'table.to_dict("records"), or data.arrays(x=table["x"].to_numpy(), …)'
        return "" if iterated else "column.to_list(), or data.arrays(column.to_numpy())"
    return next((f"table.{call}" for name, call in _CALLS.items() if hasattr(kind, name)), "")
