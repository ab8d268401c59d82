"""A layer as a plain function of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compile._compiled import compiled
from ..core._types import Params
from ._call import Inputs, Keywords, Output
from ._given import check_given
from ._layer import Layer, require_layer

__all__ = ["predictor"]


def predictor(params: Params, *, compile: bool = False) -> Callable[[Layer], Callable[..., Any]]:
    """Turn a layer into a plain function of arrays, in evaluation mode.

    Args:
        params: The parameters of the layer.
        compile: Whether to compile the function, once per shape.

    Returns:
        A function of a Layer. It returns `predict(*xs, **kw)`, which takes arrays of MLX or numpy and returns the
        output of the layer.

    Raises:
        ValueError: The parameters are not those of the layer.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> model = nn.linear(3, 2)
    >>> predict = nn.predictor(nn.init(0)(model))(model)
    >>> predict(mx.ones((5, 3))).shape
    (5, 2)
    """

    def bind(target: Layer) -> Callable[..., Output]:
        check_given(require_layer(target, "predictor"), params)

        def call(params: Params, xs: Inputs, kw: Keywords) -> Output:
            return target.apply.run(params, xs, kw, False)[0]

        step = compiled(call, "params", "xs", "kw", compile=compile, title="predictor", numpy=("xs", "kw"))
        return lambda *xs, **kw: step(params, xs, kw)

    return bind
