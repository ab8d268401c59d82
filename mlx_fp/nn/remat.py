"""Gradient checkpointing: forget what a layer computes on the way, and compute it again for the gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import rng
from ..types import Params
from .layer import Apply, Layer
from .lift import as_layer

__all__ = ["remat"]


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
        return rng.recomputed(lambda params, xs, kw: inner.apply.run(params, xs, kw, train), params, xs, kw)

    return replace(inner, apply=Apply(run), name=f"remat({inner.name})")
