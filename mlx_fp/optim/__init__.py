"""Optimisers as values: every one of mlx.optimizers, every schedule, and verbs that wrap them."""

from typing import NoReturn

from ..core import _mlx as _door  # noqa: F401  says what to install where MLX is missing
from ._groups import groups
from ._mlx_optimizers import *  # noqa: F403
from ._mlx_optimizers import __all__ as _optimizers
from ._optimizer import Optimizer, lift
from ._schedules import one_cycle, warmup_cosine, wsd
from ._state import averaged, reading, scale_rates
from ._wrap import clip_norm, clip_value, ema, skip_nonfinite

__all__ = [
    "Optimizer",
    "averaged",
    "clip_norm",
    "clip_value",
    "ema",
    "groups",
    "lift",
    "one_cycle",
    "reading",
    "scale_rates",
    "skip_nonfinite",
    "warmup_cosine",
    "wsd",
]
__all__ += _optimizers


def __getattr__(name: str) -> NoReturn:
    if name == "accumulate":
        raise AttributeError(
            "accumulation is no optimiser: fit(…, accumulate=n) makes one step of n batches, and "
            "step.accumulate(params, opt_state, batches) one of a list"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
