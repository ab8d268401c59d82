"""Optimisers as values: the optimisers and schedules of mlx.optimizers, and wrappers around optimisers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core import _mlx as _door  # noqa: F401  its error names the extra to install where MLX is missing
from ..core._late import late
from ._mlx_optimizers import *  # noqa: F403
from ._mlx_optimizers import __all__ as _optimizers
from ._optimizer import Optimizer, lift
from ._schedules import one_cycle, warmup_cosine, wsd

if TYPE_CHECKING:
    from ._averaging import lookahead as lookahead
    from ._averaging import schedule_free as schedule_free
    from ._groups import groups as groups
    from ._precision import master as master
    from ._precision import state_dtype as state_dtype
    from ._precision import stochastic_rounding as stochastic_rounding
    from ._quantized import quantized as quantized
    from ._scaled import projected as projected
    from ._scaled import scaled as scaled
    from ._sharded import sharded as sharded
    from ._state import averaged as averaged
    from ._state import reading as reading
    from ._state import scale_rates as scale_rates
    from ._wrap import clip_norm as clip_norm
    from ._wrap import clip_value as clip_value
    from ._wrap import ema as ema
    from ._wrap import skip_nonfinite as skip_nonfinite

_NAMES = {  # loaded at their first use: module -> names
    "._averaging": ("lookahead", "schedule_free"),
    "._groups": ("groups",),
    "._precision": ("master", "state_dtype", "stochastic_rounding"),
    "._quantized": ("quantized",),
    "._scaled": ("projected", "scaled"),
    "._sharded": ("sharded",),
    "._state": ("averaged", "reading", "scale_rates"),
    "._wrap": ("clip_norm", "clip_value", "ema", "skip_nonfinite"),
}

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

_late = late(__name__, _NAMES)


def _loaded(name: str) -> Any:
    if name == "accumulate":
        raise AttributeError(
            "accumulation is not an optimiser: fit(…, accumulate=n) makes one step from n batches, and "
            "step.accumulate(params, opt_state, batches) one step from a list"
        )
    return _late(name)


if not TYPE_CHECKING:  # with a `__getattr__` a type checker would accept any name
    __getattr__ = _loaded


def __dir__() -> list[str]:
    return sorted(__all__)
