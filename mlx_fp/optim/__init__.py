"""Optimisers as values: the optimisers and schedules of mlx.optimizers, and wrappers around optimisers."""

from typing import NoReturn

from ..core import _mlx as _door  # noqa: F401  its error names the extra to install where MLX is missing
from ._averaging import lookahead, schedule_free
from ._groups import groups
from ._mlx_optimizers import *  # noqa: F403
from ._mlx_optimizers import __all__ as _optimizers
from ._optimizer import Optimizer, lift
from ._precision import master, state_dtype, stochastic_rounding
from ._quantized import quantized
from ._scaled import projected, scaled
from ._schedules import one_cycle, warmup_cosine, wsd
from ._sharded import sharded
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
    "lookahead",
    "master",
    "one_cycle",
    "projected",
    "quantized",
    "reading",
    "scale_rates",
    "scaled",
    "schedule_free",
    "sharded",
    "skip_nonfinite",
    "state_dtype",
    "stochastic_rounding",
    "warmup_cosine",
    "wsd",
]
__all__ += _optimizers


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> NoReturn:
    if name == "accumulate":
        raise AttributeError(
            "accumulation is not an optimiser: fit(…, accumulate=n) makes one step from n batches, and "
            "step.accumulate(params, opt_state, batches) one step from a list"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
