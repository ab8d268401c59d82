"""Other methods of a lifted module, and modules inside it, as layers."""

from __future__ import annotations

from dataclasses import replace

from ..core._errors import unknown
from ._beside import Beside
from ._layer import Apply, Layer, renamed
from ._module_call import ModuleCall

__all__ = ["method"]


def method(target: Layer, name: str) -> Layer:
    """Run another method of a lifted module, or a module inside it, on the same parameters.

    For example, `method(autoencoder, "decode")` runs only the decoder.

    Args:
        target: The lifted layer.
        name: The name of the method or of the inner module.

    Returns:
        A Layer with the parameters of `target`.

    Raises:
        AttributeError: The module has no such method, or the layer does not come from a module.

    >>> import mlx.nn
    >>> from mlx_fp import nn
    >>> class Twice(mlx.nn.Linear):
    ...     def encode(self, x):
    ...         return self(x) + self(x)
    >>> twice = nn.lift(Twice, 3, 2)
    >>> method(twice, "encode").apply(twice.init(0), mx.ones((1, 3)))[0].shape
    (1, 2)
    """
    run = target.apply.run
    if isinstance(run, Beside):
        inner = method(replace(target, apply=Apply(run.inner)), name)
        return replace(inner, apply=Apply(replace(run, inner=inner.apply.run)))
    if not isinstance(run, ModuleCall):
        raise AttributeError(f"{target.name} has no {name!r}: methods are those of a lifted module")
    if not callable(getattr(run.template, name, None)):
        names = [key for key in (*vars(type(run.template)), *run.template) if not key.startswith("_")]
        raise AttributeError(f"{target.name}: {unknown('method', name, names)}")
    call = replace(run, method=name)
    return renamed(replace(target, apply=Apply(call), takes=call.takes), f"{{}}.{name}")
