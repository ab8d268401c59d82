"""Compute the digest of a checkpoint: one SHA-256 over the manifest and each tensor's name, dtype, shape and bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ..core._tensors import Tensor

__all__ = ["digesting"]

_LONG, _THREADS = 1 << 20, 2
"""The size in bytes from which a tensor is hashed in a thread, and the number of threads."""


class Digesting:
    """A digest in progress: threads hash the long tensors while the caller does other work."""

    def __init__(self, pool: ThreadPoolExecutor, tensors: Mapping[str, Tensor]) -> None:
        self._heads = {name: (tensor.dtype, list(tensor.shape)) for name, tensor in tensors.items()}
        self._parts = {name: _start(pool, tensor) for name, tensor in tensors.items()}

    def of(self, schema: int, manifest: str) -> str:
        """Wait for the threads, and return the digest of schema, manifest and tensors in hexadecimal."""
        digest = hashlib.sha256(f"mlx_fp {schema}\n{manifest}\n".encode())
        for name in sorted(self._parts):
            part = self._parts[name]
            text = part.result() if isinstance(part, Future) else part
            digest.update(json.dumps([name, *self._heads[name], text]).encode())
        return digest.hexdigest()


def digesting(tensors: Mapping[str, Tensor]) -> tuple[ThreadPoolExecutor, Digesting]:
    """Start a digest, and return its thread pool and the digest. Call `digest.of` inside `with pool:`.

    >>> pool, digest = digesting({"a": Tensor("U8", (2,), memoryview(b"ab"))})
    >>> with pool:
    ...     digest.of(2, "{}") == digest.of(2, "{ }")
    False
    """
    pool = ThreadPoolExecutor(_THREADS)
    return pool, Digesting(pool, tensors)


def _start(pool: ThreadPoolExecutor, tensor: Tensor) -> str | Future[str]:
    if tensor.sha256 is not None:
        return tensor.sha256
    return pool.submit(_sha256, tensor.data) if len(tensor.data) >= _LONG else _sha256(tensor.data)


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
