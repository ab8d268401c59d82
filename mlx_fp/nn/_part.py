"""A named part of a layer: as a layer on the parameters of the whole, and as a view during one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..core._errors import unknown
from ..core._types import Array, Params
from ..tree._paths import copy_arrays
from ._call import Inputs, Keywords, Output, Result
from ._composition import run_part
from ._dense import dense_weight, is_adapter, is_quantized
from ._layer import Apply, Layer, renamed
from ._method import method
from ._module_call import ModuleCall

__all__ = ["Part", "part_at"]


def part_at(target: Layer, name: str) -> Layer:
    """Run one named part of a composition, on the parameters of the whole.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> model = nn.sequential(first=nn.linear(3, 2), second=nn.relu)
    >>> part_at(model, "first").apply(nn.init(0)(model), mx.ones((4, 3)))[0].shape
    (4, 2)
    """
    part = dict(target.parts)[name]

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        y, after = run_part(part, name, params[name], xs, kw, train)
        return y, {**params, name: after}

    rebuild = target.apply.rebuild
    apply = Apply(run, None if rebuild is None else lambda change: part_at(rebuild(change), name))
    return renamed(replace(target, apply=apply, takes=part.takes), f"{{}}.{name}")


class Part:
    """A part of a layer during one call. A call runs the part; its attributes are its arrays and its methods."""

    __slots__ = ("_layer", "_params", "_run")

    def __init__(self, layer: Layer, run: Callable[..., Output], params: Callable[[], Params]) -> None:
        self._layer, self._run, self._params = layer, run, params

    def __call__(self, *xs: object, **kw: object) -> Output:
        """Run the part."""
        return self._run(self._layer, *xs, **kw)

    def __getattr__(self, name: str) -> Any:
        params = self._params()
        if name == "weight" and (weight := self._dense_weight(params)) is not None:
            return weight
        if isinstance(params, dict) and name in params:
            return copy_arrays(params[name])  # a copy: changes in place do not reach the parameters
        try:
            return partial(self._run, method(self._layer, name))
        except AttributeError:
            raise AttributeError(unknown(f"array of {self._layer.name},", name, params)) from None

    def _dense_weight(self, params: Params) -> Array | None:
        """Return the matrix of a quantised or adapted part; None for any other part."""
        run = self._layer.apply.run
        if not isinstance(run, ModuleCall) or not (is_quantized(run.template) or is_adapter(run.template)):
            return None
        module = run.bound(params, train=False)
        weight: Array = module.weight if is_adapter(module) else dense_weight(module)
        return weight
