"""Use a key as the random stream of MLX.

Layers of mlx.nn draw from the random stream of the thread. `run` installs a key as that stream for one call, and
returns the key at which the stream ended. It restores the stream afterwards, also after an exception. So randomness is
an argument and a result, also under `mx.compile`, and no layer has to pass keys on. For example, a training step calls
`run(key, lambda: loss(params, batch))`, and the returned key is the key of the next step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TypeVar

from ..core._fork import check_process
from ..core._mlx import mx
from ..core._types import Array

__all__ = ["ambient", "has_moved", "key", "move_to", "position", "run", "undrawn"]

T = TypeVar("T")


_installed: ContextVar[bool] = ContextVar("installed", default=False)
"""Whether a key is installed. Each call runs in a copied context, so an interrupt cannot leave the flag set."""

_restored = threading.local()
"""`array`: the array of the stream when the last `run` in this thread ended."""


def key(seed: int | Array) -> Array:
    """Return the random key of a seed.

    Args:
        seed: An int in [0, 2**64), or a key, which is returned unchanged.

    Returns:
        A uint32 array of shape `(2,)`.

    Raises:
        TypeError: The seed is neither such an int nor an array.
        ValueError: The array is no key.

    >>> key(7).tolist(), key(key(7)).tolist()
    ([0, 7], [0, 7])
    """
    check_process()
    check_seed(seed)
    return seed if isinstance(seed, mx.array) else mx.random.key(seed)


def check_seed(seed: object) -> None:
    """Raise TypeError for a seed that is no int in range, and ValueError for an array that is no key."""
    if isinstance(seed, mx.array):
        if seed.shape != (2,) or seed.dtype != mx.uint32:
            raise ValueError(f"a random key is a uint32 array of shape (2,); got {seed.dtype} {seed.shape}")
    elif isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise TypeError(f"a seed is an int in [0, 2**64) or a random key; got {seed!r}")


def run(seed: int | Array, fn: Callable[[], T]) -> tuple[T, Array]:
    """Call `fn()` with a key as the random stream of MLX. The stream of the caller does not move.

    Args:
        seed: An int seed or a key.
        fn: A function without arguments, which may draw random numbers.

    Returns:
        `(result, key)`: the result of `fn`, and the key at which the stream ended. If `fn` draws no random numbers,
        this is the given key.

    >>> first, after = run(7, lambda: mx.random.uniform())
    >>> second, _ = run(after, lambda: mx.random.uniform())
    >>> mx.random.seed(7)
    >>> [first.item(), second.item()] == [mx.random.uniform().item(), mx.random.uniform().item()]
    True
    """
    first = key(seed)
    outer = position()
    try:
        try:
            move_to(first)
            start, value = _stream_array(), ambient(fn)
            return value, first if _stream_array() is start else position()
        finally:
            move_to(outer)
    finally:
        move_to(outer)  # an interrupt may have skipped the first restore
        _restored.array = _stream_array()


def has_moved() -> bool:
    """Tell whether the stream of this thread has moved since the last `run` in this thread ended.

    >>> _ = run(0, lambda: mx.random.uniform())
    >>> has_moved(), mx.random.uniform().shape, has_moved()
    (False, (), True)
    """
    return _stream_array() is not getattr(_restored, "array", None)


def undrawn(fn: Callable[[], T]) -> T:
    """Call `fn()` and return its result. Raise ValueError if it draws random numbers while no key is installed.

    >>> undrawn(lambda: mx.random.uniform())
    Traceback (most recent call last):
    ValueError: a layer drew random numbers with train=True and no key: pass key=mlx_fp.rng.key(seed)
    """
    if _installed.get():
        return fn()
    outer = position()
    start = _stream_array()
    try:
        try:
            value = fn()
            if _stream_array() is not start:
                raise ValueError(
                    "a layer drew random numbers with train=True and no key: pass key=mlx_fp.rng.key(seed)"
                )
            return value
        finally:
            if _stream_array() is not start:
                move_to(outer)
    finally:
        if _stream_array() is not start:  # an interrupt may have skipped the first restore
            move_to(outer)


def ambient(fn: Callable[[], T]) -> T:
    """Call `fn()` and return its result. `fn` may draw from the current stream, whoever seeded the stream."""

    def allow_and_call() -> T:
        _installed.set(True)
        return fn()

    return copy_context().run(allow_and_call)


def position() -> Array:
    """Return the key of the stream as a new array, because draws change the array of the stream in place."""
    return _stream_array().astype(mx.uint32)


def move_to(position: Array) -> None:
    """Let the stream go on from a key."""
    _stream_array()[:] = position


def _stream_array() -> Array:
    """Return the array of the stream. It is the same object until a function draws."""
    array: Array = mx.random.state[0]  # type: ignore[index]  # the stubs of MLX say `object`
    return array
