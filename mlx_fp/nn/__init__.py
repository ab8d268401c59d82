"""Models as values: the layers of mlx.nn, combinators of layers, and conversion from and to mlx.nn modules."""

from ..core import _mlx as _door  # noqa: F401  its error names the extra to install where MLX is missing
from . import initializers, losses
from ._adapters import dora, lora, merged
from ._combine import add, branch, concat, repeat, residual, sequential, share, stack
from ._define import buffer, define, param
from ._freeze import freeze, frozen, unfreeze
from ._given import pretrained
from ._layer import Layer, init, layer, shapes
from ._lift import fn, lift, lower, method, split
from ._mlx_layers import *  # noqa: F403
from ._mlx_layers import __all__ as _layers
from ._predictor import predictor
from ._quantized import quantized
from ._remat import remat
from ._replaced import replaced
from ._segment_mask import segment_mask
from ._summary import Summary, summary
from ._wide import wide
from ._with_frozen import with_frozen
from ._without_adapters import without_adapters

__all__ = [
    "Layer",
    "Summary",
    "add",
    "branch",
    "buffer",
    "concat",
    "define",
    "dora",
    "fn",
    "freeze",
    "frozen",
    "init",
    "initializers",
    "layer",
    "lift",
    "lora",
    "losses",
    "lower",
    "merged",
    "method",
    "param",
    "predictor",
    "pretrained",
    "quantized",
    "remat",
    "repeat",
    "replaced",
    "residual",
    "segment_mask",
    "sequential",
    "shapes",
    "share",
    "split",
    "stack",
    "summary",
    "unfreeze",
    "wide",
    "with_frozen",
    "without_adapters",
]
__all__ += _layers


def __dir__() -> list[str]:
    return sorted(__all__)
