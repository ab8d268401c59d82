"""Gradient checkpointing: drop the activations of a layer, and recompute them for the gradients."""

from __future__ import annotations

from dataclasses import replace

from ..compile import rng
from ..core._mlx import mx, utils
from ..core._types import Params
from ..tree._paths import divided, merge
from ._call import Inputs, Keywords, Result
from ._head_tap import untapped
from ._layer import Apply, Layer, renamed
from ._lift import as_layer

__all__ = ["remat"]

tree_map = utils.tree_map


def remat(entry: object) -> Layer:
    """Recompute the activations of a layer in the backward pass: less memory, more time.

    Outputs, gradients and random numbers are the same as without `remat`. Keyword arguments that are not arrays, dicts,
    lists or tuples are constants. See Chen et al., Training Deep Nets with Sublinear Memory Cost,
    https://arxiv.org/abs/1604.06174.

    Args:
        entry: A Layer, an mlx.nn module or its class, or a callable.

    Returns:
        A Layer with the same parameters.

    >>> from mlx_fp import nn
    >>> model = remat(nn.sequential(nn.linear(4, 4), nn.dropout(0.5)))
    >>> model.apply(nn.init(0)(model), mx.ones((2, 4)), train=True, key=1)[0].shape
    (2, 4)
    """
    inner = as_layer(entry, "remat's layer")

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        may_train, trains = inner.trainable.leaves(params), inner.trainable(params)
        # leaves without a gradient, such as quantised weights, are captured by the closure
        differentiable, rest = divided(may_train | trains)(params)
        rest = tree_map(mx.stop_gradient, rest)
        arrays = {name: value for name, value in kw.items() if isinstance(value, (mx.array, dict, list, tuple))}

        def forward(differentiable: Params, xs: Inputs, arrays: Keywords) -> Result:
            y, after = inner.apply.run(merge(differentiable, rest), xs, {**kw, **arrays}, train)
            return y, divided(may_train | trains)(after)[1]

        y, buffers = untapped(lambda: rng.recomputed(forward, differentiable, xs, arrays))
        return y, merge(differentiable, buffers)

    return renamed(replace(inner, apply=Apply(run, lambda change: remat(change("", inner)))), "remat({})")
