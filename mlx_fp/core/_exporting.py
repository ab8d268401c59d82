"""Functions with a derivative of their own, and the context in which they are plain functions.

MLX cannot write a custom function to a file. While a function is exported, the custom functions of the library call
their forward function, and MLX differentiates that. The derivative is then the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import cache
from typing import Any, TypeVar

from ._mlx import mx

__all__ = ["custom_function", "exporting", "is_exporting"]

T = TypeVar("T")

_exporting: ContextVar[bool] = ContextVar("exporting", default=False)


def exporting(fn: Callable[..., T]) -> Callable[..., T]:
    """Return a function that runs `fn` as for a file: with plain operations only, uncompiled, without a backend.

    >>> exporting(is_exporting)(), is_exporting()
    (True, False)
    """

    def set_and_call(*args: object) -> T:
        _exporting.set(True)
        return fn(*args)

    return lambda *args: copy_context().run(set_and_call, *args)


def is_exporting() -> bool:
    """Tell whether the current function is traced for a file."""
    return _exporting.get()


def custom_function(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    vmap: Callable[..., Any] | None = None,
    plain: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Return a function with a derivative of its own. While a function is exported, it is a plain function.

    Args:
        forward: The function of arrays.
        backward: `backward(primals, cotangents, outputs)` returns the cotangent of each primal.
        vmap: `vmap(inputs, axes)`, if `mx.vmap` needs another one than MLX's.
        plain: The plain function; `forward` by default.

    >>> double = custom_function(lambda x: 2 * x, lambda x, cotangent, _: 3 * cotangent)
    >>> derivative = mx.grad(double)
    >>> derivative(mx.array(1.0)).item(), exporting(derivative)(mx.array(1.0)).item()
    (3.0, 2.0)
    """

    @cache
    def custom() -> Any:
        function = mx.custom_function(forward)
        function.vjp(backward)
        if vmap is not None:
            function.vmap(vmap)
        return function

    return lambda *args: (plain or forward)(*args) if is_exporting() else custom()(*args)
