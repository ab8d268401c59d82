"""Read JSON from untrusted files: limit its size and the number of its parts before the parser runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["CHECKPOINT", "Limits", "check_size", "read_json"]


class Limits(NamedTuple):
    """The maximum size of a JSON text."""

    characters: int
    parts: int
    """The number of lists and dicts. A small one takes twenty times the memory of its characters."""
    values: int
    """The number of values in lists and dicts."""


CHECKPOINT = Limits(characters=100_000_000, parts=2_000_000, values=4_000_000)
"""The limits for the description of the trees of a checkpoint."""


def check_size(text: str | bytes, limits: Limits = CHECKPOINT, *, parts: int = 0, values: int = 0) -> None:
    """Raise ValueError for a JSON text that would take too much time or memory to read.

    The check counts brackets and commas, also those inside strings. `parts` and `values` are added to these counts.

    >>> check_size("[[], []]", parts=2_000_000)
    Traceback (most recent call last):
    ValueError: more than 2,000,000 lists and dicts describe it, and that is the limit
    """
    count: Callable[[str], int] = text.count if isinstance(text, str) else lambda sign: text.count(sign.encode())
    sizes = Limits(len(text), count("[") + count("{") + parts, count(",") + values)
    for number, maximum, name in zip(sizes, limits, ("characters", "lists and dicts", "values"), strict=True):
        if number > maximum:
            raise ValueError(f"more than {maximum:,} {name} describe it, and that is the limit")


def read_json(
    text: str, limits: Limits = CHECKPOINT, hook: Callable[[list[tuple[str, Any]]], object] | None = None
) -> Any:
    """Parse a JSON text within the limits. A larger text, or a text that is no JSON, raises ValueError.

    `hook(pairs)` builds the value for each JSON object. Default: a dict.

    >>> read_json('{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    check_size(text, limits)
    return json.loads(text, object_pairs_hook=hook)
