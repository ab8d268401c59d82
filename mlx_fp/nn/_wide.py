"""A part of a model that computes in float32 while the other parts compute in a narrower dtype."""

from __future__ import annotations

from dataclasses import replace

from ..core._options import FLAG, check_options
from ..core._types import Params
from ..tree._casting import cast, first_floating, is_narrow, widened
from ..tree._select import everything
from ._call import Inputs, Keywords, Result
from ._layer import Apply, Change, Layer, renamed
from ._lift import as_layer

__all__ = ["wide"]


def wide(entry: object, *, narrow_outputs: bool = True) -> Layer:
    """Compute a layer in float32 within a step of a narrower dtype, for example `train_step(dtype=mx.bfloat16)`.

    Such a step does not cast the layer's parameters. Narrow inputs are cast to float32. Nothing is cast if the inputs
    are float32 or contain no floating array: for example, an embedding of token ids returns float32.

    Args:
        entry: A Layer, an mlx.nn module or its class, or a callable.
        narrow_outputs: Whether floating outputs are cast to the dtype of the first floating input. Use False for a
            head whose outputs go to the loss.

    Returns:
        A Layer with the same parameters.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> norm = nn.wide(nn.layer_norm(4))
    >>> norm.apply(nn.init(0)(norm), mx.ones((2, 4), mx.bfloat16))[0].dtype
    mlx.core.bfloat16
    """
    check_options("wide", {"narrow_outputs": narrow_outputs}, {"narrow_outputs": FLAG})
    inner = as_layer(entry, "wide's layer")

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        input_dtype = first_floating((xs, kw))
        if not is_narrow(input_dtype):
            return inner.apply.run(params, xs, kw, train)
        y, after = inner.apply.run(params, widened(xs), widened(kw), train)
        return cast(y, input_dtype) if narrow_outputs else y, after

    def rebuild(change: Change) -> Layer:
        return wide(change("", inner), narrow_outputs=narrow_outputs)

    return renamed(replace(inner, apply=Apply(run, rebuild), wide=everything), "wide({})")
