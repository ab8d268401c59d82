"""Parts of a batch that are computed side by side, each on a CPU stream of its own.

MLX computes all but matrix products on one core of a CPU. A second stream is a second core.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..core._mlx import mx
from ._blas import threads

__all__ = ["run_parallel"]

T = TypeVar("T")

_of_thread = threading.local()  # MLX's streams belong to the thread that made them


def run_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Call each function, its arrays being computed on a stream of its own; return the results in order.

    A RuntimeWarning says so where several streams share a BLAS of several threads: their products wait for each other.
    """
    if (count := threads() or 1) > 1 and len(calls) > 1:
        warnings.warn(
            f"{len(calls)} streams with {count} threads of the BLAS each wait for one another: take the steps within "
            f"`with fp.cpu.tuned(streams={len(calls)}):`, which leaves the BLAS one thread for the time",
            RuntimeWarning,
            stacklevel=2,
        )
    streams = _of_thread.__dict__.setdefault("streams", [])
    streams += [mx.new_stream(mx.Device(mx.cpu)) for _ in range(len(calls) - 1 - len(streams))]
    results = [call() for call in calls[:1]]
    for stream, call in zip(streams, calls[1:], strict=False):
        with mx.stream(stream):
            results.append(call())
    return results
