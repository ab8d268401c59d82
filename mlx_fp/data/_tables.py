"""Refuse tables of pandas, polars, pyarrow and similar libraries, because an integer does not index them by row."""

from __future__ import annotations

__all__ = ["refuse_table"]

_ROW_METHODS = {
    "to_pylist": "to_pylist()",  # pyarrow: tables, and arrays of pyarrow's own scalars
    "to_dicts": "to_dicts()",  # polars
    "collect_schema": "collect().to_dicts()",  # polars, lazy
}
"""The call that returns rows, by an attribute that only this kind of table has."""

_TABLE_FORMATS = ("arrow", "pandas", "polars")
"""The formats of a Hugging Face dataset in which a row is a table."""


def refuse_table(name: str, rows: object, *, iterated: bool = False) -> None:
    """Raise TypeError for a table or a labelled column; the message has the code that returns its rows.

    Where the rows are `iterated`, a labelled column is accepted, because iteration yields its values in order.

    >>> refuse_table("source", [1, 2])
    >>> class Frame:
    ...     columns, to_dicts = ["x"], list
    >>> refuse_table("source", Frame())
    Traceback (most recent call last):
    TypeError: source takes rows by position, and a Frame is no such sequence: write table.to_dicts()
    """
    form = getattr(rows, "format", None)
    if isinstance(form, dict) and form.get("type") in _TABLE_FORMATS:  # a Hugging Face dataset
        raise TypeError(f"{name}: rows in the format {form['type']!r} are tables: write .with_format(None)")
    remedy = _remedy(type(rows), iterated)
    if remedy:
        kind = type(rows).__name__
        raise TypeError(f"{name} takes rows by position, and a {kind} is no such sequence: write {remedy}")


def _remedy(kind: type, iterated: bool) -> str:
    """Return the code to write instead of a table of this class, an empty text for other classes."""
    if hasattr(kind, "iloc"):  # pandas, and libraries with its interface
        if hasattr(kind, "columns"):
            return 'table.to_dict("records"), or data.arrays(x=table["x"].to_numpy(), …)'
        return "" if iterated else "column.to_list(), or data.arrays(column.to_numpy())"
    return next((f"table.{call}" for name, call in _ROW_METHODS.items() if hasattr(kind, name)), "")
