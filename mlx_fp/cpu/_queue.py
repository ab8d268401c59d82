"""Let the queue of MLX run empty between two parts of a graph.

MLX allocates the result of an operation when it puts the operation into the queue of a CPU stream, and it waits only
while more than ten tasks of ten operations each have not run. So the arrays of about a hundred operations are in memory
at the same time, whatever the order of the graph is. Operations that compute nothing fill the queue at almost no cost:
MLX queues the operation after them when the operations before them have run.
"""

from __future__ import annotations

from ..core._mlx import mx
from ..core._types import Array
from ._thresholds import THROTTLED_BYTES

__all__ = ["throttled"]

_QUEUED = 120
"""The operations that MLX queues before it waits are 110 in MLX 0.32: eleven tasks of ten."""


def throttled(arrays: list[Array], nbytes: int) -> list[Array]:
    """Return the same arrays, and let the queue run empty before an operation reads them.

    Args:
        arrays: The arrays.
        nbytes: The size of the arrays that are read next. For small ones the queue costs less memory than time.

    Returns:
        The arrays.

    >>> [x.item() for x in throttled([mx.array(1), mx.array(2)], 1 << 30)]
    [1, 2]
    """
    if nbytes < THROTTLED_BYTES or not arrays:
        return arrays
    done = mx.stop_gradient(mx.depends(arrays[:1], arrays)[0])
    after: list[Array] = mx.depends(arrays, [mx.depends([done], [])[0] for _ in range(_QUEUED)])
    return after
