"""Set a limit of the process for the duration of a run: MLX's cache of freed memory.

MLX's CPU build keeps 32 MB of freed memory by default. A step with larger arrays then allocates them from the system
each time, page by page. On a GPU, MLX keeps as much memory as there is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..core._mlx import mx, on_cpu
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
"""The process that imported this module. A fork of it lacks MLX's threads, and to set MLX's limits there would hang."""


class _CacheLimit:
    """The limit of MLX's cache, which several contexts may demand at the same time. The largest demand counts.

    The last context that ends restores the value from before the first context, unless the program has set another
    value in the meantime.
    """

    def __init__(self) -> None:
        self._demands: list[int] = []
        self._before = DEFAULT_CACHE_BYTES
        self.current: int | None = None
        """The value that the contexts have set, None outside them."""
        self._lock = threading.Lock()

    @contextmanager
    def demand(self, value: int) -> Iterator[None]:
        """Demand a value of the limit until the context ends."""
        with self._lock:
            self._demands.append(value)
            before = self._set(max(self._demands))
            if len(self._demands) == 1:
                self._before = before
        try:
            yield
        finally:
            with self._lock:
                self._demands.remove(value)
                self._set(max(self._demands, default=self._before))
                if not self._demands:
                    self.current = None

    def _set(self, value: int) -> int:
        """Set the limit, unless the program has set a value of its own; return the previous value."""
        before = _swap_cache_limit(value)
        if self.current is not None and before != self.current:
            _swap_cache_limit(before)
        self.current = value
        return before


def _swap_cache_limit(limit: int) -> int:
    """Set MLX's limit of freed memory in bytes, free the memory above it, and return the previous limit."""
    before = int(mx.set_cache_limit(limit))
    if limit < before:
        mx.clear_cache()  # by itself MLX frees the memory above a lower limit only when it frees another array
    return before


_CACHE = _CacheLimit()


@contextmanager
def tuned(parameter_bytes: int | None = None) -> Iterator[None]:
    """Give steps of a model enough cached memory until the context ends.

    `fit` enters this context by itself; use it around loops of your own. The limit of the cache belongs to the process.
    It is restored at the end, after an exception too. If the program has set a limit of its own, that limit stays. With
    a GPU as MLX's device, and in a forked process, nothing is changed.

    Args:
        parameter_bytes: Bytes of the parameters that train, `step.parameter_bytes`. For less than 8 MB, MLX's default
            is enough. None, the default: MLX keeps up to 1 GiB.

    >>> before = mx.set_cache_limit(32 << 20)
    >>> with tuned():
    ...     mx.set_cache_limit(1 << 30) >> 20
    1024
    >>> mx.set_cache_limit(before) >> 20
    32
    """
    with ExitStack() as stack:
        if on_cpu() and os.getpid() == _PROCESS:
            cache_bytes = TUNED_CACHE_BYTES if parameter_bytes is None else _cache_bytes(parameter_bytes)
            if cache_bytes > DEFAULT_CACHE_BYTES and _limit_is_ours():
                mx.clear_cache()  # free the arrays of other sizes, which would fill the cache for good
                stack.enter_context(_CACHE.demand(cache_bytes))
        yield


def _cache_bytes(parameter_bytes: int) -> int:
    """Return how much freed memory MLX should keep for a model: the bytes that each step frees and allocates again.

    For example, trained parameters of 100 MB get 300 MB. The result 0 means that MLX's default is enough.
    """
    if parameter_bytes >= WAIT_BYTES:
        return CACHED_MODELS * parameter_bytes
    if parameter_bytes >= MIDDLE_BYTES and not is_native():
        return CACHED_MODELS_FUSED * parameter_bytes
    return 0


def _limit_is_ours() -> bool:
    """Tell whether the cache limit is MLX's default or was set by `tuned`, and not by the program."""
    limit = int(mx.set_cache_limit(DEFAULT_CACHE_BYTES))
    mx.set_cache_limit(limit)
    return limit in (DEFAULT_CACHE_BYTES, _CACHE.current)
