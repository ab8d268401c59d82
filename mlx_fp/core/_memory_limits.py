"""Set MLX's limits of memory for the duration of a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ._mlx import mx
from ._options import check_options, count, optional

__all__ = ["memory_limits"]


@contextmanager
def memory_limits(*, limit: int | None = None, cache: int | None = None, wired: int | None = None) -> Iterator[None]:
    """Set MLX's limits of memory, in bytes, until the context ends. It then restores the limits from before.

    The limits are those of the process. A memory limit makes MLX wait for queued operations, so that the peak is
    smaller: for example, `mlx_fp.memory_limits(limit=mx.get_active_memory() + (1 << 30))`.

    Args:
        limit: The memory above which MLX waits before it queues an operation. Default: no change.
        cache: The freed memory that MLX keeps for later arrays; the memory above it is freed at once. Default: no
            change.
        wired: The memory that stays resident on macOS 15 or later, at most MLX's `max_recommended_working_set_size`. It
            has no effect elsewhere. Default: no change.

    Raises:
        ValueError: A limit is below 0, or MLX refuses it.
        TypeError: A limit is no int.

    >>> before = mx.set_cache_limit(1 << 20)
    >>> with memory_limits(cache=1 << 16):
    ...     print(mx.set_cache_limit(1 << 16))
    65536
    >>> mx.set_cache_limit(before)
    1048576
    """
    given = {"limit": limit, "cache": cache, "wired": wired}
    check_options("memory_limits", given, dict.fromkeys(given, optional(count(0))))
    setters = {"limit": mx.set_memory_limit, "cache": mx.set_cache_limit, "wired": mx.set_wired_limit}
    with ExitStack() as restoring:
        for name, value in given.items():
            if value is not None:
                restoring.callback(setters[name], setters[name](value))
        if cache is not None:
            mx.clear_cache()  # by itself MLX frees the memory above a lower limit when it frees another array
        yield
