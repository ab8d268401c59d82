"""The schemas of checkpoints: which there are, and how a file of an older one becomes one of this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import _schema_1

__all__ = ["SCHEMA", "check_schema", "migrated"]

SCHEMA = 3
"""The version of the files that are written now."""

MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    _schema_1.NUMBER: _schema_1.migrated,
    2: lambda manifest: manifest,  # schema 3 adds lists that are packed; what 2 has means the same
}
"""What makes of the manifest of a schema that of the next."""


def check_schema(number: int) -> None:
    """Refuse a schema that this version cannot read.

    >>> check_schema(99)
    Traceback (most recent call last):
    ValueError: its schema is 99, and this version of mlx_fp reads 1, 2, 3
    """
    if number not in {*MIGRATIONS, SCHEMA}:
        known = ", ".join(map(str, [*MIGRATIONS, SCHEMA]))
        raise ValueError(f"its schema is {number}, and this version of mlx_fp reads {known}")


def migrated(manifest: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the manifest of a schema as this version has it.

    >>> migrated({"params": {"dict": []}}, 1)
    {'params': {'dict': []}, 'left_out': []}
    """
    while number in MIGRATIONS:
        manifest, number = MIGRATIONS[number](manifest), number + 1
    return manifest
