"""Text for the page: escaped names, numbers, sizes and times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite

__all__ = ["as_number", "column_text", "count_text", "duration", "figure_text", "plain", "safe", "setting_text"]

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
"""Control characters, which a page must not contain. Tabs and line breaks stay."""


def plain(value: object) -> str:
    """Return text without characters that a page must not contain.

    >>> plain("a\\x1bb\\ud800")
    'a\\ufffdb?'
    """
    return _UNPRINTABLE.sub("\ufffd", str(value).encode("utf-8", "replace").decode("utf-8"))


def safe(value: object) -> str:
    """Return text as HTML, in which no character begins an element or ends an attribute.

    >>> safe('</script>"')
    '&lt;/script&gt;&quot;'
    """
    return escape(plain(value), quote=True)


def as_number(value: object) -> float | None:
    """Return a number, also of the texts by which JSON names numbers that are not finite; None for other values.

    >>> as_number(2), as_number("nan"), as_number("accuracy"), as_number(True)
    (2.0, nan, None, None)
    """
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def figure_text(value: float | None) -> str:
    """Return a figure with four decimals, or in scientific notation where it is tiny or huge.

    >>> figure_text(0.28271), figure_text(1e-7), figure_text(float("nan")), figure_text(None)
    ('0.2827', '1.000e-07', 'nan', '')
    """
    if value is None:
        return ""
    if not isfinite(value):
        return str(value)
    return f"{value:,.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"


def column_text(values: Iterable[float | None], decimals: int = 4) -> list[str]:
    """Return the figures of a column in one notation, so that their decimal points are aligned.

    >>> column_text([1.0, 2.0, None]), column_text([0.5, 1e-7])
    (['1', '2', ''], ['5.000e-01', '1.000e-07'])
    """
    listed = list(values)
    finite = [value for value in listed if value is not None and isfinite(value)]
    if all(value == int(value) and abs(value) < 1e15 for value in finite):
        return ["" if value is None else f"{value:,.0f}" for value in listed]
    fixed = all(value == 0 or 10.0 ** (1 - decimals) <= abs(value) < 1e6 for value in finite) or decimals < 4
    notation = f",.{decimals}f" if fixed else ".3e"
    return ["" if value is None else f"{value:{notation}}" for value in listed]


def count_text(value: object) -> str:
    """Return a count with separators, and nothing for None.

    >>> count_text(12000), count_text(None)
    ('12,000', '')
    """
    number = as_number(value)
    return "" if number is None else f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Return a time in two units.

    >>> duration(0.25), duration(75), duration(7500)
    ('0.25 s', '1 min 15 s', '2 h 5 min')
    """
    if seconds is None or not isfinite(seconds):
        return figure_text(seconds)
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 59.95 else "1 min"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def setting_text(value: object) -> str:
    """Return a setting as a person writes it: text without quotes, other values as in Python.

    >>> setting_text("async"), setting_text(None), setting_text({"a": [1, "b"]})
    ('async', 'None', '{a: [1, b]}')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{plain(name)}: {setting_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return "[" + ", ".join(map(setting_text, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else plain(value)
