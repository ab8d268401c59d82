"""Limit how far MLX's queue runs ahead of the computation on CPUs.

MLX allocates the result of an operation when it queues the operation, and it waits only when about a hundred operations
are queued. These hold the memory of all large arrays between them, which `mx.depends` does not change. A concatenation
of many scalars is one operation of the graph and many operations of the queue. After it, little else fits in.
"""

from __future__ import annotations

from ..core._mlx import mx
from ..core._types import Array
from ._thresholds import QUEUED_OPERATIONS

__all__ = ["queued"]


def queued(array: Array) -> Array:
    """Return the same array; MLX queues what depends on the result when most operations before it are done.

    >>> queued(mx.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    if not array.size:
        return array
    scalar = array.reshape(-1)[:1]
    return mx.depends([array], [mx.concatenate([scalar] * QUEUED_OPERATIONS)])[0]
