"""Optimisers as values: every one of mlx.optimizers, every schedule, and verbs that wrap them."""

from ..core import _mlx as _door  # noqa: F401  says what to install where MLX is missing
from ._groups import groups
from ._mlx_optimizers import *  # noqa: F403
from ._mlx_optimizers import __all__ as _optimizers
from ._optimizer import Optimizer, lift
from ._state import averaged, reading, scale_rates
from ._wrap import accumulate, clip_norm, clip_value, ema, skip_nonfinite

__all__ = [
    "Optimizer",
    "accumulate",
    "averaged",
    "clip_norm",
    "clip_value",
    "ema",
    "groups",
    "lift",
    "reading",
    "scale_rates",
    "skip_nonfinite",
]
__all__ += _optimizers
