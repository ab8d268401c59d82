"""A key as MLX's random stream.

Layers of mlx.nn draw from the stream of the thread. `run` installs a key as that stream for one call, hands back
the key that the stream ended on, and restores the stream, after an exception too. So randomness is an argument
and a result, under `mx.compile` as well, and no layer has to pass keys on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from ..core._fork import check_process
from ..core._mlx import mx, utils
from ..core._types import Array

__all__ = ["ambient", "key", "recomputed", "run", "undrawn"]

T = TypeVar("T")


_installed: ContextVar[bool] = ContextVar("installed", default=False)
"""Whether a key is installed; a call has a context of its own, so that an interrupt leaves nothing behind."""


def key(seed: int | Array) -> Array:
    """Return a key, shape `(2,)` uint32, for an int seed; a key passes through.

    >>> key(7).tolist(), key(key(7)).tolist()
    ([0, 7], [0, 7])
    """
    check_process()
    check_seed(seed)
    return seed if isinstance(seed, mx.array) else mx.random.key(seed)


def check_seed(seed: object) -> None:
    """Raise TypeError for a seed that is no int, and ValueError for an array that is no key."""
    if isinstance(seed, mx.array):
        if seed.shape != (2,) or seed.dtype != mx.uint32:
            raise ValueError(f"a random key is a uint32 array of shape (2,); got {seed.dtype} {seed.shape}")
    elif isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise TypeError(f"a seed is an int in [0, 2**64) or a random key; got {seed!r}")


def run(seed: int | Array, fn: Callable[[], T]) -> tuple[T, Array]:
    """Call `fn()` with a key as the random stream: `(what it returned, the key that the stream ended on)`.

    The stream of the caller is left where it was. Without a draw the key comes back as it is.

    >>> first, after = run(7, lambda: mx.random.uniform())
    >>> second, _ = run(after, lambda: mx.random.uniform())
    >>> mx.random.seed(7)
    >>> [first.item(), second.item()] == [mx.random.uniform().item(), mx.random.uniform().item()]
    True
    """
    installed = key(seed)
    outer = _position()
    try:
        try:
            _move(installed)
            start, value = _held(), ambient(fn)
            return value, installed if _held() is start else _position()
        finally:
            _move(outer)
    finally:
        _move(outer)  # an interrupt may have cut the first time


def undrawn(fn: Callable[[], T]) -> T:
    """Call `fn()`, and raise ValueError if it draws random numbers while no key is installed.

    >>> undrawn(lambda: mx.random.uniform())
    Traceback (most recent call last):
    ValueError: a layer drew random numbers with train=True and no key: pass key=mlx_fp.rng.key(seed)
    """
    if _installed.get():
        return fn()
    outer = _position()
    start = _held()
    try:
        try:
            value = fn()
            if _held() is not start:
                raise ValueError(
                    "a layer drew random numbers with train=True and no key: pass key=mlx_fp.rng.key(seed)"
                )
            return value
        finally:
            if _held() is not start:
                _move(outer)
    finally:
        if _held() is not start:  # an interrupt may have cut the first time
            _move(outer)


def ambient(fn: Callable[[], T]) -> T:
    """Call `fn()` on the stream as it stands, whoever seeded it."""

    def called() -> T:
        _installed.set(True)
        return fn()

    return copy_context().run(called)


def recomputed(fn: Callable[..., T], *trees: Any) -> T:
    """Call `fn(*trees)` under `mx.checkpoint`, so that the recomputation draws what the first pass drew.

    The key is closed over, as `mx.checkpoint` cannot take one as argument; the key that the stream ended on comes out
    with the result, and the stream goes on from it. Integers among the arrays have no gradient.
    """
    start = mx.stop_gradient(_position())

    def body(*trees: Any) -> tuple[T, Array]:
        return run(start, lambda: fn(*utils.tree_map(_constant_integers, trees)))

    value, after = mx.checkpoint(body)(*trees)
    _move(mx.stop_gradient(after))
    return value


def _constant_integers(leaf: Any) -> Any:
    floating = not isinstance(leaf, mx.array) or mx.issubdtype(leaf.dtype, mx.inexact)
    return leaf if floating else mx.stop_gradient(leaf)


def _position() -> Array:
    """The stream's key as an array of its own; the stream's array object itself changes in place."""
    return _held().astype(mx.uint32)


def _move(to: Array) -> None:
    _held()[:] = to


def _held() -> Array:
    """The stream's own array: the same object until something draws."""
    held: Array = mx.random.state[0]  # type: ignore[index]
    return held
