"""The model alone as a compiled pure function of parameters and inputs, in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._mlx import mx
from ..core._types import Params, Tree
from ..core.backend import on_device
from ..nn._layer import Layer
from ._bound_model import BoundModel
from ._checks import check_options

__all__ = ["forward"]


def forward(model: Layer, *, compile: bool | Mapping[str, object] = True, dtype: mx.Dtype | None = None) -> Compiled:
    """Return a compiled function `run(params, xs, kw) -> outputs`.

    It computes the same outputs as an evaluation step. `xs` is the tuple of positional inputs, `kw` the dict of inputs
    by name.

    Args:
        model: The Layer to call.
        compile: As for `eval_step`.
        dtype: As for `eval_step`.

    >>> from mlx_fp import nn
    >>> forward(nn.dropout(0.5))({}, (mx.ones((2,)),), {}).tolist()
    [1.0, 1.0]
    """
    check_options(compile, dtype)

    def run(params: Params, xs: tuple[Tree, ...], kw: dict[str, Tree]) -> Tree:
        bound = BoundModel(model, params, False, dtype)
        return rng.run(0, lambda: bound(*xs, **kw))[0]

    title = f"predict({model.name})"
    return compiled(on_device(run), "params", "xs", "kw", compile=compile, title=title, numpy=("xs", "kw"))
