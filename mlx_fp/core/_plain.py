"""Check for plain values, which a file can hold as text."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["check_plain"]


def check_plain(value: object, place: str) -> None:
    """Raise TypeError, with the place, unless a value is plain.

    Plain values are numbers, texts, None, and lists and dicts of plain values.

    >>> check_plain({"note": "first", "rates": [0.1, {"x": len}]}, "user")
    Traceback (most recent call last):
    TypeError: user.rates.1.x is builtin_function_or_method; give a number, a text, None, or lists and dicts of these
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key of {place} is {key!r}; keys are texts")
            check_plain(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            check_plain(item, f"{place}.{i}")
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        kind = type(value).__name__
        raise TypeError(f"{place} is {kind}; give a number, a text, None, or lists and dicts of these")
