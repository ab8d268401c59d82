"""The digest of a checkpoint: one SHA-256 over its manifest and over names, dtypes, shapes and bytes of its tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ._tensors import Tensor

__all__ = ["digesting"]

_LONG, _THREADS = 1 << 20, 2
"""Bytes of a tensor that is worth a thread's while; threads that digest the long ones."""


class Digesting:
    """A digest that is being made: threads digest long tensors while the caller does other work."""

    def __init__(self, pool: ThreadPoolExecutor, tensors: Mapping[str, Tensor]) -> None:
        self._heads = {name: (tensor.dtype, list(tensor.shape)) for name, tensor in tensors.items()}
        self._parts = {name: _begun(pool, tensor) for name, tensor in tensors.items()}

    def of(self, schema: int, told: str) -> str:
        """Wait for the tensors, and return the digest of all with the schema and the manifest."""
        found = hashlib.sha256(f"mlx_fp {schema}\n{told}\n".encode())
        for name in sorted(self._parts):
            part = self._parts[name]
            text = part.result() if isinstance(part, Future) else part
            found.update(json.dumps([name, *self._heads[name], text]).encode())
        return found.hexdigest()


def digesting(tensors: Mapping[str, Tensor]) -> tuple[ThreadPoolExecutor, Digesting]:
    """Begin a digest; the pool of its threads is a context, and the digest is asked for within.

    >>> pool, digest = digesting({"a": Tensor("U8", (2,), memoryview(b"ab"))})
    >>> with pool:
    ...     digest.of(2, "{}") == digest.of(2, "{ }")
    False
    """
    pool = ThreadPoolExecutor(_THREADS)
    return pool, Digesting(pool, tensors)


def _begun(pool: ThreadPoolExecutor, tensor: Tensor) -> str | Future[str]:
    if tensor.sha256 is not None:
        return tensor.sha256
    return pool.submit(_sha256, tensor.data) if len(tensor.data) >= _LONG else _sha256(tensor.data)


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
