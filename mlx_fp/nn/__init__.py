"""Models as values: the layers of mlx.nn, combinators of layers, and conversion from and to mlx.nn modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import _mlx as _door  # noqa: F401  its error names the extra to install where MLX is missing
from ..core._late import late as _late
from ._layer import Layer, init, layer, shapes
from ._lift import fn, lift, split
from ._mlx_layers import *  # noqa: F403
from ._mlx_layers import __all__ as _layers

if TYPE_CHECKING:
    from . import initializers as initializers
    from . import losses as losses
    from ._adapters import dora as dora
    from ._adapters import lora as lora
    from ._adapters import merged as merged
    from ._combine import add as add
    from ._combine import branch as branch
    from ._combine import concat as concat
    from ._combine import repeat as repeat
    from ._combine import residual as residual
    from ._combine import sequential as sequential
    from ._combine import share as share
    from ._combine import stack as stack
    from ._define import buffer as buffer
    from ._define import define as define
    from ._define import param as param
    from ._freeze import freeze as freeze
    from ._freeze import frozen as frozen
    from ._freeze import unfreeze as unfreeze
    from ._given import pretrained as pretrained
    from ._lowered import lower as lower
    from ._method import method as method
    from ._mlx_activations import *  # noqa: F403
    from ._predictor import predictor as predictor
    from ._quantized import quantized as quantized
    from ._remat import remat as remat
    from ._replaced import replaced as replaced
    from ._segment_mask import segment_mask as segment_mask
    from ._summary import Summary as Summary
    from ._summary import summary as summary
    from ._wide import wide as wide
    from ._with_frozen import with_frozen as with_frozen
    from ._without_adapters import without_adapters as without_adapters

_NAMES = {  # loaded at their first use: module -> names
    "._adapters": ("dora", "lora", "merged"),
    "._combine": ("add", "branch", "concat", "repeat", "residual", "sequential", "share", "stack"),
    "._define": ("buffer", "define", "param"),
    "._freeze": ("freeze", "frozen", "unfreeze"),
    "._given": ("pretrained",),
    "._lowered": ("lower",),
    "._method": ("method",),
    "._mlx_activations": (
        "celu",
        "elu",
        "gelu",
        "gelu_approx",
        "gelu_fast_approx",
        "glu",
        "hard_shrink",
        "hard_tanh",
        "hardswish",
        "leaky_relu",
        "log_sigmoid",
        "log_softmax",
        "mish",
        "prelu",
        "relu",
        "relu2",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softmax",
        "softmin",
        "softplus",
        "softshrink",
        "softsign",
        "step",
        "tanh",
    ),
    "._predictor": ("predictor",),
    "._quantized": ("quantized",),
    "._remat": ("remat",),
    "._replaced": ("replaced",),
    "._segment_mask": ("segment_mask",),
    "._summary": ("Summary", "summary"),
    "._wide": ("wide",),
    "._with_frozen": ("with_frozen",),
    "._without_adapters": ("without_adapters",),
}

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
__all__ += (*_layers, *_NAMES["._mlx_activations"])

if not TYPE_CHECKING:  # with a `__getattr__` a type checker would accept any name
    __getattr__ = _late(__name__, _NAMES, {name: f".{name}" for name in ("initializers", "losses")})


def __dir__() -> list[str]:
    return sorted(__all__)
