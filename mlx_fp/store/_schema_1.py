"""Files of schema 1, which no version writes any more: their digest, and the entry that their manifest lacks."""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["NUMBER", "check_digest", "migrated"]

NUMBER = 1
"""The number that such files have."""

_LENGTH = 64


def check_digest(content: bytes, told: str) -> None:
    """Check a `.safetensors` file of schema 1: its digest is over the whole file, with zeros in the digest's place."""
    head = content[: 8 + int.from_bytes(content[:8], "little")]
    mark = head.find(f'"sha256":"{told}"'.encode())
    if mark < 0:
        raise ValueError("its digest is not where it should be")
    at = mark + len(b'"sha256":"')
    found = hashlib.sha256(content[:at])
    found.update(b"0" * _LENGTH)
    found.update(memoryview(content)[at + _LENGTH :])
    if found.hexdigest() != told:
        raise ValueError("it is damaged: its digest is another")


def migrated(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest as schema 2 has it, which lists the paths of parameters that were left out: here none.

    >>> migrated({"params": {"dict": []}})
    {'params': {'dict': []}, 'left_out': []}
    """
    return {**manifest, "left_out": []}
