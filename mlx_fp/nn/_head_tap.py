"""Take the inputs of the head of a model in place of its outputs, in a call of the model.

The head is the linear layer, or the embedding used by `as_linear`, whose outputs are the logits. `intercepting` calls a
function of the caller in place of the modules at the chosen paths. `head_arrays` reads the arrays of such a module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ..core._mlx import mlx_nn
from ..core._types import Array
from ..core.backend import in_use

__all__ = ["HeadCall", "Tap", "head_arrays", "intercepting", "tapped", "untapped", "within_part"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class HeadCall(NamedTuple):
    """A call of a linear module inside a model."""

    path: str
    module: mlx_nn.Module
    """The module, with the arrays of this call of the model."""
    kind: type[mlx_nn.Module]
    """The class of the module."""
    hidden: Array
    """The input, `(…, d)`."""
    compute: Callable[[], Array]
    """Compute the output of the module."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Which modules are intercepted, and the function that is called in their place."""

    wants: Callable[[str, mlx_nn.Module], bool]
    call: Callable[[HeadCall], Array]
    prefix: str = ""
    """The path of the part that runs now."""


_active: ContextVar[Tap | None] = ContextVar("tap", default=None)


def intercepting(tap: Tap | None, fn: Callable[[], T]) -> T:
    """Call `fn()`. In calls of lifted modules in it, `tap.call` replaces the calls of the modules that `tap` wants."""

    def set_and_call() -> T:
        _active.set(tap)
        return fn()

    return copy_context().run(set_and_call)


def within_part(path: str, run: F) -> F:
    """Return the computation of the part at a path of the layer that runs now."""
    tap = _active.get()
    if tap is None:
        return run
    inner = Tap(tap.wants, tap.call, _joined(tap.prefix, path))
    return lambda *args: intercepting(inner, lambda: run(*args))  # type: ignore[return-value]  # of the same types


def untapped(fn: Callable[[], T]) -> T:
    """Call `fn()` such that nothing in it is intercepted: its arrays do not exist outside of it."""
    return fn() if _active.get() is None else intercepting(None, fn)


def tapped(module: mlx_nn.Module) -> mlx_nn.Module:
    """Intercept the modules inside a clone that the active tap wants; the clone changes."""
    tap = _active.get()
    if tap is not None:
        wanted = {
            id(inner): (inner, path)
            for name, inner in module.named_modules()
            if tap.wants(path := _joined(tap.prefix, name), inner)
        }
        for inner, path in wanted.values():
            _intercept(inner, path, tap.call)
    return module


def head_arrays(call: HeadCall) -> tuple[Array | tuple[Array, ...], Mapping[str, Any]]:
    """Return the weight of a head, and the further options of `linear_cross_entropy`.

    Raises:
        TypeError: The module computes something else than a linear layer of mlx.nn.
    """
    module = call.module
    for dense in (mlx_nn.Linear, mlx_nn.Embedding):
        if _computes_as(call.kind, dense):
            return module["weight"], {"bias": module.get("bias")}
    for kind in (mlx_nn.QuantizedLinear, mlx_nn.QuantizedEmbedding):
        if _computes_as(call.kind, kind):
            names = [name for name in ("weight", "scales", "biases") if module.get(name) is not None]
            options = {name: getattr(module, name) for name in ("group_size", "bits", "mode")}
            return tuple(module[name] for name in names), {"bias": module.get("bias"), **options}
    raise TypeError(
        f"the head {call.path!r} is {call.kind.__name__}, and a loss without logits needs a Linear, QuantizedLinear, "
        "Embedding or QuantizedEmbedding of mlx.nn: leave this layer as it was, or use the task without head="
    )


def _computes_as(kind: type[mlx_nn.Module], base: type[mlx_nn.Module]) -> bool:
    """Tell whether a class computes the product of a class of mlx.nn, without an override."""
    name = _method(base)
    same = getattr(kind, name, None) is getattr(base, name)
    return issubclass(kind, base) and (same or kind is in_use().substitutes.get(base))


def _method(kind: type) -> str:
    return "as_linear" if hasattr(kind, "as_linear") else "__call__"


def _intercept(module: mlx_nn.Module, path: str, call: Callable[[HeadCall], Array]) -> None:
    """Replace the product of one module of a clone."""
    kind, name = type(module), _method(type(module))
    product = getattr(kind, name)

    def intercepted(self: mlx_nn.Module, x: Array, *rest: Any, **options: Any) -> Array:
        def compute() -> Array:
            result: Array = product(self, x, *rest, **options)
            return result

        return compute() if _active.get() is None else call(HeadCall(path, self, kind, x, compute))

    attributes = {name: intercepted, "__module__": kind.__module__}
    object.__setattr__(module, "__class__", type(kind.__name__, (kind,), attributes))


def _joined(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path
