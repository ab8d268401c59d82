"""The schemas of checkpoints, and the conversion of manifests of older schemas."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import _schema_1

__all__ = ["SCHEMA", "check_schema", "migrate"]

SCHEMA = 3
"""The schema number of new files."""

MIGRATIONS: Mapping[int, Callable[[dict[str, object]], dict[str, object]]] = {
    _schema_1.NUMBER: _schema_1.add_left_out,
    2: lambda manifest: manifest,  # schema 3 adds packed lists, and keeps the meaning of everything in schema 2
}
"""The functions that convert the manifest of a schema to the next schema."""


def check_schema(number: int) -> None:
    """Raise ValueError for a schema that this version cannot read.

    >>> check_schema(99)
    Traceback (most recent call last):
    ValueError: its schema is 99, and this version of mlx_fp reads 1, 2, 3
    """
    if number not in {*MIGRATIONS, SCHEMA}:
        readable = ", ".join(map(str, [*MIGRATIONS, SCHEMA]))
        raise ValueError(f"its schema is {number}, and this version of mlx_fp reads {readable}")


def migrate(manifest: dict[str, object], number: int) -> dict[str, object]:
    """Convert the manifest of a schema to the current schema.

    >>> migrate({"params": {"dict": []}}, 1)
    {'params': {'dict': []}, 'left_out': []}
    """
    while number in MIGRATIONS:
        manifest, number = MIGRATIONS[number](manifest), number + 1
    return manifest
