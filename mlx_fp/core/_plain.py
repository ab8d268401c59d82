"""Plain values, which a file can hold as text: numbers, texts, None, and lists and dicts of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._options import is_unread
from ._signature import name_of

__all__ = ["as_plain", "check_plain"]


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


def as_plain(value: Any) -> Any:
    """Return a value as a plain value. A function is given by its name, and a value of another type by its text.

    >>> as_plain({"rate": 0.5, "fn": len, "sizes": (1, range(2))})
    {'rate': 0.5, 'fn': 'len', 'sizes': [1, 'range(0, 2)']}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): as_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array, for example a key as the seed
        return "array" if is_unread(value) else value.tolist()
    return name_of(value) if callable(value) else str(value).removeprefix("mlx.core.")
