"""Limits of the process for the time of a run: how much freed memory MLX keeps, how many threads the BLAS has.

MLX's CPU build keeps 32 MB of freed memory by default. Larger arrays are then allocated anew at each step, page by
page. On a GPU MLX keeps as much as there is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ..core._mlx import mx, on_cpu
from ._blas import set_threads
from ._native import is_native
from ._thresholds import (
    CACHED_MODELS,
    CACHED_MODELS_FUSED,
    DEFAULT_CACHE_BYTES,
    MIDDLE_BYTES,
    TUNED_CACHE_BYTES,
    WAIT_BYTES,
)

__all__ = ["tuned"]

_PROCESS = os.getpid()
"""The process that imported this. In a fork of it MLX's threads do not exist, and a change of its limits would hang."""


class _Limit:
    """A limit of the process that several contexts ask for at a time; `choose` of all their demands holds.

    The last context to end puts back the value from before the first, unless the program has set another meanwhile.
    """

    def __init__(self, swap: Callable[[int], int | None], choose: Callable[[list[int]], int]) -> None:
        self._swap, self._choose = swap, choose
        self._demands: list[int] = []
        self._before: int | None = None
        self.held: int | None = None
        """The value that the contexts have set, None outside them."""
        self._lock = threading.Lock()

    @contextmanager
    def at(self, demand: int) -> Iterator[None]:
        """Hold the limit at `demand`, or at another context's demand where that is chosen."""
        with self._lock:
            self._demands.append(demand)
            before = self._set(self._choose(self._demands))
            if len(self._demands) == 1:
                self._before = before
        try:
            yield
        finally:
            with self._lock:
                self._demands.remove(demand)
                self._set(self._choose(self._demands) if self._demands else self._before)
                if not self._demands:
                    self.held = None

    def _set(self, value: int | None) -> int | None:
        """Set the limit, but not over a value of the program's own; return what it was."""
        if value is None:
            return None
        before = self._swap(value)
        if self.held is not None and before is not None and before != self.held:
            self._swap(before)
        self.held = value
        return before


def _swap_cache_limit(limit: int) -> int:
    before = int(mx.set_cache_limit(limit))
    if limit < before:
        mx.clear_cache()  # MLX lets go of what is above a lower limit only as it frees more
    return before


_CACHE = _Limit(_swap_cache_limit, max)
_BLAS_THREADS = _Limit(set_threads, min)


@contextmanager
def tuned(parameter_bytes: int | None = None, *, streams: int = 1) -> Iterator[None]:
    """Within, MLX keeps enough freed memory for steps of a model, and the BLAS has the threads that its steps want.

    `fit` and `evaluate` enter this context by themselves; it is for loops of your own. Both limits belong to the
    process. They are put back at the end, after an exception too. Where the program has set a cache limit of its own,
    that limit stays. With a GPU as MLX's device, and in a forked process, nothing is done.

    Args:
        parameter_bytes: bytes of the model's parameters, `step.parameter_bytes`. A model of less than 8 MB needs no
            more than MLX's default. None: MLX keeps up to 1 GiB.
        streams: the `streams` of the step. With more than one the BLAS has a single thread, because products that are
            computed side by side would wait for each other's threads.

    >>> before = mx.set_cache_limit(32 << 20)
    >>> with tuned():
    ...     mx.set_cache_limit(1 << 30) >> 20
    1024
    >>> mx.set_cache_limit(before) >> 20
    32
    """
    with ExitStack() as stack:
        if on_cpu() and os.getpid() == _PROCESS:
            wanted = TUNED_CACHE_BYTES if parameter_bytes is None else _cache_bytes(parameter_bytes)
            if wanted > DEFAULT_CACHE_BYTES and _limit_is_ours():
                mx.clear_cache()  # arrays of other sizes, which would fill it for good
                stack.enter_context(_CACHE.at(wanted))
            if streams > 1:
                stack.enter_context(_BLAS_THREADS.at(1))
        yield


def _cache_bytes(parameter_bytes: int) -> int:
    """Return how much freed memory steps of a model need: what they free and allocate again."""
    if parameter_bytes >= WAIT_BYTES:
        return CACHED_MODELS * parameter_bytes
    if parameter_bytes >= MIDDLE_BYTES and not is_native():
        return CACHED_MODELS_FUSED * parameter_bytes
    return 0


def _limit_is_ours() -> bool:
    """Tell whether the cache limit is MLX's default or that of a tuned context, and not the program's own."""
    now = int(mx.set_cache_limit(DEFAULT_CACHE_BYTES))
    mx.set_cache_limit(now)
    return now in (DEFAULT_CACHE_BYTES, _CACHE.held)
