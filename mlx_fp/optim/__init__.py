"""Optimisers as values: every one of mlx.optimizers, every schedule, and verbs that wrap them."""

from .. import door as _door  # noqa: F401  says what to install where MLX is missing
from .groups import groups
from .optimizer import Optimizer, lift
from .optimizers import *  # noqa: F403
from .optimizers import __all__ as _optimizers
from .wrap import accumulate, averaged, clip_norm, clip_value, ema, reading, skip_nonfinite

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
    "skip_nonfinite",
]
__all__ += _optimizers
