"""Compute parts of a batch at the same time, each part on a CPU stream of its own.

On a CPU, MLX computes every operation on one core, except matrix products. A second stream uses a second core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..core._mlx import mx

__all__ = ["run_parallel"]

T = TypeVar("T")

_of_thread = threading.local()  # an MLX stream belongs to the thread that made it


def run_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Call each function with a CPU stream of its own; return the results in order."""
    streams = _of_thread.__dict__.setdefault("streams", [])
    streams += [mx.new_stream(mx.Device(mx.cpu)) for _ in range(len(calls) - 1 - len(streams))]
    results = [call() for call in calls[:1]]
    for stream, call in zip(streams, calls[1:], strict=False):
        with mx.stream(stream):
            results.append(call())
    return results
