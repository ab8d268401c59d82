"""The text of a call, as a user writes it."""

from __future__ import annotations

from collections.abc import Mapping

from ..core._signature import name_of

__all__ = ["call_text"]


def call_text(verb: str, *args: object, **options: object) -> str:
    """Return the text of a call; options that are None are left out, and functions go by their names.

    >>> call_text("batch", 8, drop_last=True, stack=None)
    'batch(8, drop_last=True)'
    >>> call_text("collate", {"x": "image", "n": len})
    "collate({'x': 'image', 'n': len})"
    """
    keywords = [f"{name}={_text(value)}" for name, value in options.items() if value is not None]
    return f"{verb}({', '.join([*map(_text, args), *keywords])})"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_text(entry)}" for key, entry in value.items()) + "}"
    return name_of(value) if callable(value) else repr(value)
