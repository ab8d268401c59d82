"""Gradient checkpointing: forget what a layer computes on the way, and compute it again for the gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..compile import rng
from ..core._mlx import mx, utils
from ..core._types import Params
from ..tree._paths import divided, merge
from ._layer import Apply, Layer
from ._lift import as_layer

__all__ = ["remat"]

tree_map = utils.tree_map


def remat(entry: Any) -> Layer:
    """Recompute a layer's activations in the backward pass instead of keeping them: less memory, more time.

    Same values, same gradients, same random numbers as without. Keyword arguments that are no arrays are constants.
    See Chen et al., Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174.

    >>> from mlx_fp import nn
    >>> model = remat(nn.sequential(nn.linear(4, 4), nn.dropout(0.5)))
    >>> model.apply(nn.init(0)(model), mx.ones((2, 4)), train=True, key=1)[0].shape
    (2, 4)
    """
    inner = as_layer(entry, "remat's layer")

    def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool) -> tuple[Any, Params]:
        may, trains = inner.trainable.leaves(params), inner.trainable(params)
        kept, rest = divided(may | trains)(params)  # what has no gradient, quantised weights say, is closed over
        rest = tree_map(mx.stop_gradient, rest)
        arrays = {name: value for name, value in kw.items() if isinstance(value, (mx.array, dict, list, tuple))}

        def forward(kept: Params, xs: tuple[Any, ...], arrays: dict[str, Any]) -> tuple[Any, Params]:
            y, after = inner.apply.run(merge(kept, rest), xs, {**kw, **arrays}, train)
            return y, divided(may | trains)(after)[1]

        y, after = rng.recomputed(forward, kept, xs, arrays)
        return y, merge(kept, after)

    return replace(inner, apply=Apply(run), name=f"remat({inner.name})")
