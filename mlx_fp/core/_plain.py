"""Values that a file can hold as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_plain"]


def check_plain(value: Any, at: str) -> None:
    """Raise TypeError, with the place, unless a value is a number, a text, None, or lists and dicts of such values.

    >>> check_plain({"note": "first", "rates": [0.1, {"x": len}]}, "user")
    Traceback (most recent call last):
    TypeError: user.rates.1.x is builtin_function_or_method; give a number, a text, None, or lists and dicts of these
    """
    if isinstance(value, Mapping):
        for key, one in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key of {at} is {key!r}; keys are texts")
            check_plain(one, f"{at}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            check_plain(one, f"{at}.{i}")
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        kind = type(value).__name__
        raise TypeError(f"{at} is {kind}; give a number, a text, None, or lists and dicts of these")
