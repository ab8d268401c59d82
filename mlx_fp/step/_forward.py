"""The model alone as a compiled pure function of parameters and inputs, in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._types import Params
from ..core.backend import on_device
from ..nn._layer import Layer
from ._bound_model import Bound
from ._checks import check_options

__all__ = ["forward"]


def forward(model: Layer, *, compile: bool | Mapping[str, Any] = True, dtype: Any = None) -> Compiled:
    """Return `run(params, xs, kw) -> outputs`, with the numbers that an evaluation step gives to its loss.

    Options are those of `eval_step`.

    >>> from mlx_fp import nn
    >>> forward(nn.dropout(0.5))({}, (mx.ones((2,)),), {}).tolist()
    [1.0, 1.0]
    """
    check_options(compile, dtype)

    def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        bound = Bound(model, params, False, dtype)
        return rng.run(0, lambda: bound(*xs, **kw))[0]

    title = f"predict({model.name})"
    return compiled(on_device(run), "params", "xs", "kw", compile=compile, title=title, numpy=("xs", "kw"))
