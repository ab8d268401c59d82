"""Models as values: the layers of mlx.nn, combinators of layers, and conversion from and to mlx.nn modules."""

from ..core import _mlx as _door  # noqa: F401  its error names the extra to install where MLX is missing
from . import initializers, losses
from ._combine import add, branch, concat, repeat, residual, sequential, share, stack
from ._define import buffer, define, param
from ._freeze import freeze, frozen, unfreeze
from ._layer import Layer, init, layer, shapes
from ._lift import fn, lift, lower, method, split
from ._mlx_layers import *  # noqa: F403
from ._mlx_layers import __all__ as _layers
from ._predictor import predictor
from ._remat import remat
from ._segment_mask import segment_mask
from ._summary import Summary, summary
from ._wide import wide

__all__ = [
    "Layer",
    "Summary",
    "add",
    "branch",
    "buffer",
    "concat",
    "define",
    "fn",
    "freeze",
    "frozen",
    "init",
    "initializers",
    "layer",
    "lift",
    "losses",
    "lower",
    "method",
    "param",
    "predictor",
    "remat",
    "repeat",
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
]
__all__ += _layers


def __dir__() -> list[str]:
    return sorted(__all__)
