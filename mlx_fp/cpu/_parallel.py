"""Compute parts of a batch at the same time, each part on a CPU stream of its own.

On a CPU, MLX computes every operation on one core, except matrix products. A second stream uses a second core.
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

_of_thread = threading.local()  # an MLX stream belongs to the thread that made it


def run_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Call each function with a CPU stream of its own; return the results in order.

    If several streams share a BLAS with several threads, a RuntimeWarning names the remedy: the products of such
    streams wait for each other's threads.
    """
    if (count := threads() or 1) > 1 and len(calls) > 1:
        warnings.warn(
            f"{len(calls)} streams with {count} threads of the BLAS each wait for one another: take the steps within "
            f"`with fp.cpu.tuned(streams={len(calls)}):`, which sets the BLAS to one thread until the context ends",
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
