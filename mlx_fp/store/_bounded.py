"""JSON that a stranger may have made: its size and the number of its parts are bounded before it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["CHECKPOINT", "Limits", "check_size", "read_json"]


class Limits(NamedTuple):
    """What a text may have at most."""

    characters: int
    parts: int
    """Lists and dicts; a small one takes twenty times the memory of its characters."""
    values: int


CHECKPOINT = Limits(characters=100_000_000, parts=2_000_000, values=4_000_000)
"""Of the description of a checkpoint's trees."""


def check_size(text: str | bytes, limits: Limits = CHECKPOINT, *, parts: int = 0, values: int = 0) -> None:
    """Refuse a text that would take too long to read, or too much memory: ValueError, with the limit.

    It counts brackets and commas, also those within strings. `parts` and `values` are to come on top.

    >>> check_size("[[], []]", parts=2_000_000)
    Traceback (most recent call last):
    ValueError: more than 2,000,000 lists and dicts describe it, and that is the limit
    """
    count: Callable[[str], int] = text.count if isinstance(text, str) else lambda sign: text.count(sign.encode())
    found = Limits(len(text), count("[") + count("{") + parts, count(",") + values)
    for number, most, name in zip(found, limits, ("characters", "lists and dicts", "values"), strict=True):
        if number > most:
            raise ValueError(f"more than {most:,} {name} describe it, and that is the limit")


def read_json(
    text: str, limits: Limits = CHECKPOINT, hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Read a text of bounded size; `hook` makes what stands for a dict. ValueError for anything else.

    >>> read_json('{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    check_size(text, limits)
    return json.loads(text, object_pairs_hook=hook)
