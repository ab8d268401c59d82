"""Models as values: every layer of mlx.nn, the ways to put layers together, and the way in and out of mlx.nn."""

from ..core import _mlx as _door  # noqa: F401  says what to install where MLX is missing
from . import initializers, losses
from ._combine import add, branch, concat, repeat, residual, sequential, share, stack
from ._define import buffer, define, param
from ._freeze import freeze, frozen, unfreeze
from ._layer import Layer, init, layer, predictor, shapes
from ._lift import fn, lift, lower, method, split
from ._mlx_layers import *  # noqa: F403
from ._mlx_layers import __all__ as _layers
from ._remat import remat
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
