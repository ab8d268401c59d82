"""Optimisers as values: every one of mlx.optimizers, every schedule, and verbs that wrap them."""

from .. import door as _door  # noqa: F401  says what to install where MLX is missing
from .groups import groups
from .optimizer import Optimizer, changed, lift
from .optimizers import *  # noqa: F403
from .optimizers import __all__ as _optimizers
from .state import averaged, reading, scale_rates
from .wrap import accumulate, clip_norm, clip_value, ema, skip_nonfinite

__all__ = [
    "Optimizer",
    "accumulate",
    "averaged",
    "changed",
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
