"""Randomness of data: pure functions of a seed, an epoch and an index, the same on every machine."""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from struct import pack, unpack
from typing import Any

from ._cursor import natural

__all__ = ["draws", "permutation", "row_key", "seeded"]


def seeded(seed: int, what: str) -> int:
    """Return a seed; ValueError unless it is an integer from 0 to 2**32 - 1.

    >>> seeded(7, "shuffle")
    7
    """
    if natural(seed, f"the seed of {what}") >= 2**32:
        raise ValueError(f"the seed of {what} must be less than 2**32; got {seed}")
    return seed


def draws(seed: int, epoch: int, stream: int = 0) -> Random:
    """Return Python's generator for an epoch; its `random()` is the same in every version of Python.

    Generators of different streams have nothing in common.

    >>> draws(7, 0).random() == draws(7, 0).random() != draws(7, 1).random()
    True
    """
    return Random((stream << 96) | (seed << 64) | epoch)


def row_key(seed: int, epoch: int, index: int) -> Any:
    """Return a random key of MLX's, `(2,)` of uint32, for one row of one epoch.

    >>> row_key(7, 0, 1).tolist() == row_key(7, 0, 1).tolist() != row_key(7, 0, 2).tolist()
    True
    """
    from ..core._mlx import mx

    bits = blake2b(pack("<QQQ", seed, epoch, index), digest_size=8).digest()
    return mx.array(list(unpack("<2I", bits)), dtype=mx.uint32)


def permutation(seed: int, epoch: int, n: int) -> memoryview:
    """Return the integers below `n`, `(n,)` of int64, sorted by random bits.

    The bits are MLX's Threefry on the CPU, whatever the default device, and equal bits stay in order: the
    result depends neither on the machine nor on whether numpy is there to sort faster. The key counts epochs
    down from the top, so that it is none that a small seed makes for a model.

    >>> permutation(7, 0, 5).tolist()
    [1, 0, 4, 3, 2]
    """
    from ..core._mlx import mx

    with mx.stream(mx.cpu):
        key = mx.array([seed, 2**32 - 1 - epoch], dtype=mx.uint32)
        bits = mx.random.split(key, (n + 1) // 2).flatten()[:n]
        mx.eval(bits)
        try:
            return memoryview(_by_numpy(bits))
        except ImportError:
            return memoryview(_by_mlx(bits))


def _by_numpy(bits: Any) -> Any:
    """Return the stable order of `(n,)` uint32: with its index in the low half, no value equals another."""
    import numpy as np

    both = np.empty((bits.size, 2), "<u4")
    both[:, 0], both[:, 1] = np.arange(bits.size, dtype=np.uint32), np.asarray(bits)
    keys = both.view("<u8").ravel()
    keys.sort()
    both[:, 1] = 0
    return keys.view("<i8")


def _by_mlx(bits: Any) -> Any:
    """Return the same order."""
    from ..core._mlx import mx

    index = mx.arange(bits.size, dtype=mx.uint64)
    order = (mx.sort((bits.astype(mx.uint64) << 32) | index) & 0xFFFFFFFF).astype(mx.int64)
    mx.eval(order)
    return order
