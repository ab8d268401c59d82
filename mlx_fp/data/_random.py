"""Random numbers of the data: pure functions of a seed, an epoch and an index, the same on every machine."""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from struct import pack, unpack
from typing import cast

from ..core._types import Array
from ._cursor import non_negative_int
from ._types import Column

__all__ = ["check_seed", "epoch_generator", "permutation", "row_key"]


def check_seed(seed: int, verb: str) -> int:
    """Return a seed as an int; ValueError unless it is an integer from 0 to 2**32 - 1.

    >>> check_seed(7, "shuffle")
    7
    """
    number = non_negative_int(seed, f"the seed of {verb}")
    if number >= 2**32:
        raise ValueError(f"the seed of {verb} must be less than 2**32; got {seed}")
    return number


def epoch_generator(seed: int, epoch: int, stream: int = 0) -> Random:
    """Return Python's generator for an epoch; its `random()` is the same in every version of Python.

    Generators of different streams are independent of each other.

    >>> epoch_generator(7, 0).random() == epoch_generator(7, 0).random() != epoch_generator(7, 1).random()
    True
    """
    return Random((stream << 96) | (seed << 64) | epoch)


def row_key(seed: int, epoch: int, index: int) -> Array:
    """Return a random key for MLX, shape `(2,)`, uint32, for one row of one epoch.

    >>> row_key(7, 0, 1).tolist() == row_key(7, 0, 1).tolist() != row_key(7, 0, 2).tolist()
    True
    """
    from ..core._mlx import mx

    bits = blake2b(pack("<QQQ", seed, epoch, index), digest_size=8).digest()
    return mx.array(list(unpack("<2I", bits)), dtype=mx.uint32)


def permutation(seed: int, epoch: int, n: int) -> memoryview:
    """Return the integers below `n`, shape `(n,)`, int64, sorted by random bits.

    MLX's Threefry generator makes the bits on the CPU, whatever the default device is, and the sort is stable. So the
    result depends neither on the machine nor on numpy, which only sorts faster. The key counts epochs down from
    2**32 - 1, so that it differs from the keys that small seeds make for models.

    >>> permutation(7, 0, 5).tolist()
    [1, 0, 4, 3, 2]
    """
    from ..core._mlx import mx

    with mx.stream(mx.cpu):
        key = mx.array([seed, 2**32 - 1 - epoch], dtype=mx.uint32)
        bits = mx.random.split(key, (n + 1) // 2).flatten()[:n]
        mx.eval(bits)
        try:
            return _sort_with_numpy(bits)
        except ImportError:
            return _sort_with_mlx(bits)


def _sort_with_numpy(bits: Array) -> memoryview:
    """Return the stable order of bits `(n,)`, uint32, as int64; the low half of each sort key is the index."""
    import numpy as np

    pairs = np.empty((bits.size, 2), "<u4")
    pairs[:, 0], pairs[:, 1] = np.arange(bits.size, dtype=np.uint32), np.asarray(bits)
    keys = pairs.view("<u8").ravel()
    keys.sort()
    pairs[:, 1] = 0
    return memoryview(cast(Column, keys.view("<i8")))


def _sort_with_mlx(bits: Array) -> memoryview:
    """Return the same order as `_sort_with_numpy`."""
    from ..core._mlx import mx

    index = mx.arange(bits.size, dtype=mx.uint64)
    order = (mx.sort((bits.astype(mx.uint64) << 32) | index) & 0xFFFFFFFF).astype(mx.int64)
    mx.eval(order)
    return memoryview(cast(Column, order))
