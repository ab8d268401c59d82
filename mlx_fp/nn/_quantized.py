"""Quantised weights at chosen paths of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..core._errors import unknown
from ..core._mlx import mlx_nn
from ..core._options import check_options, count, optional
from ..tree._select import select
from ._layer import Layer, require_layer
from ._replaced import chosen_by
from ._rewriting import rewriting
from ._surgery import Place, edited, places_of

__all__ = ["quantized"]

_DEFAULTS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"affine": (4, 64), "mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
)
"""The bits and the group size of each mode of `mx.quantize`."""


def quantized(
    spec: object = None, *, bits: int | None = None, group_size: int | None = None, mode: str = "affine"
) -> Callable[[Layer], Layer]:
    """Quantise the weights of linear layers and tables, in compositions and inside lifted modules.

    `init` makes the arrays of the layer and quantises them. Quantised weights never train.

    Args:
        spec: The paths of the layers, as in `nn.freeze`; None, the default, is every module that MLX can quantise.
        bits: The bits of a weight; by default 4, and 8 for the mode "mxfp8".
        group_size: The number of weights with one scale; by default 64, and 32, 16, 32 for the modes "mxfp4", "nvfp4",
            "mxfp8".
        mode: A mode of `mx.quantize`: "affine", "mxfp4", "nvfp4" or "mxfp8".

    Returns:
        A function of a Layer. It returns a changed copy.

    Raises:
        KeyError: The spec, or a part of it, chooses nothing that can be quantised; the message has the nearest paths.
        ValueError: The mode is unknown, there is nothing to quantise, or the inputs of a layer are no multiple of
            `group_size`.

    >>> from mlx_fp import nn, paths
    >>> params = nn.init(0)(quantized("body")(nn.sequential(body=nn.linear(64, 8), head=nn.linear(8, 2))))
    >>> sorted(paths("body")(params)), params["body"]["weight"].shape
    (['body.bias', 'body.biases', 'body.scales', 'body.weight'], (8, 8))
    """
    if mode not in _DEFAULTS:
        raise ValueError(unknown("mode of quantized,", mode, _DEFAULTS))
    options = {"bits": bits, "group_size": group_size}
    check_options("quantized", options, dict.fromkeys(options, optional(count(1))))
    bits, group_size = bits or _DEFAULTS[mode][0], group_size or _DEFAULTS[mode][1]
    chosen = select(spec)

    def quantize(module: mlx_nn.Module) -> mlx_nn.Module:
        inputs = module["weight"].shape[-1]
        if inputs % group_size:
            raise ValueError(
                f"{type(module).__name__} has {inputs} inputs, which is no multiple of the group size {group_size}: "
                "give another group_size, or a spec without it"
            )
        with_mode = {} if mode == "affine" else {"mode": mode}  # some modules know one mode only
        result: mlx_nn.Module = module.to_quantized(group_size=group_size, bits=bits, **with_mode)
        return result

    def quantize_in(target: Layer) -> Layer:
        wanted = chosen_by(chosen, require_layer(target, "quantized"), _can_quantize, "part that can be quantised")
        if not any(map(wanted, places_of(target))):
            raise ValueError(f"quantized finds nothing to quantise in {target.name}")
        return edited(target, rewriting(wanted, quantize))

    return quantize_in


def _can_quantize(place: Place) -> bool:
    return hasattr(place.module, "to_quantized") and "weight" in (place.module or ())
