"""A part that computes in float32 within a narrow model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core._options import FLAG, check_options
from ..core._types import Params
from ..tree._casting import cast, first_floating, is_narrow, widened
from ..tree._select import everything
from ._layer import Apply, Layer
from ._lift import as_layer

__all__ = ["wide"]


def wide(entry: Any, *, narrow_outputs: bool = True) -> Layer:
    """Compute a layer in float32 within a step that computes in a narrower type, `train_step(dtype=mx.bfloat16)` say.

    Such a step leaves the layer's parameters as they are. Narrow inputs go in as float32. With inputs of float32, and
    with none that is floating, nothing is cast: an embedding of tokens gives float32.

    Args:
        entry: the layer, or anything that a combinator takes for one.
        narrow_outputs: whether floating outputs come back in the type of the first floating input. False is for a head,
            whose outputs the loss takes.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> norm = nn.wide(nn.layer_norm(4))
    >>> norm.apply(nn.init(0)(norm), mx.ones((2, 4), mx.bfloat16))[0].dtype
    mlx.core.bfloat16
    """
    check_options("wide", {"narrow_outputs": narrow_outputs}, {"narrow_outputs": FLAG})
    inner = as_layer(entry, "wide's layer")

    def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool) -> tuple[Any, Params]:
        came = first_floating((xs, kw))
        if not is_narrow(came):
            return inner.apply.run(params, xs, kw, train)
        y, after = inner.apply.run(params, widened(xs), widened(kw), train)
        return cast(y, came) if narrow_outputs else y, after

    return replace(inner, apply=Apply(run), name=f"wide({inner.name})", wide=everything)
