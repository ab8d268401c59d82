"""Read files of schema 1, which this version no longer writes: check their digest and complete their manifest."""

from __future__ import annotations

import hashlib

__all__ = ["NUMBER", "add_left_out", "check_digest"]

NUMBER = 1
"""The schema number of these files."""

_DIGEST_LENGTH = 64


def check_digest(content: bytes, expected: str) -> None:
    """Check the digest of a `.safetensors` file of schema 1, and raise ValueError if it differs.

    The digest covers the complete file, with zeros in the place of the digest itself.
    """
    head = content[: 8 + int.from_bytes(content[:8], "little")]
    mark = head.find(f'"sha256":"{expected}"'.encode())
    if mark < 0:
        raise ValueError("its digest is not where it should be")
    start = mark + len(b'"sha256":"')
    digest = hashlib.sha256(content[:start])
    digest.update(b"0" * _DIGEST_LENGTH)
    digest.update(memoryview(content)[start + _DIGEST_LENGTH :])
    if digest.hexdigest() != expected:
        raise ValueError("it is damaged: its digest differs")


def add_left_out(manifest: dict[str, object]) -> dict[str, object]:
    """Convert a manifest to schema 2, which lists the paths of the parameters that the file leaves out. Here: none.

    >>> add_left_out({"params": {"dict": []}})
    {'params': {'dict': []}, 'left_out': []}
    """
    return {**manifest, "left_out": []}
