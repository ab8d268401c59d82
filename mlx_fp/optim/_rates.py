"""The learning rates in an optimiser's state: their values, and which of them follow a schedule."""

from __future__ import annotations

from ..core._mlx import mx, utils
from ..core._types import Params, State
from ._optimizer import Optimizer
from ._state import scale_rates, stages

__all__ = ["learning_rates", "scheduled_rates"]

_TRIES = 64
"""Updates in which each optimiser inside others, one that accumulates for example, must have taken a step."""


def learning_rates(opt_state: State) -> dict[str, float]:
    """Return the learning rates in the state of an optimiser or of a step, by path.

    >>> from mlx_fp import optim
    >>> learning_rates(optim.clip_norm(1.0)(optim.sgd(0.5)).init({"w": mx.array(1.0)}))
    {'inner.learning_rate': 0.5}
    """
    return {path: float(rate) for path, rate in _named(opt_state, "learning_rate").items()}


def scheduled_rates(optimizer: Optimizer, state: State, params: Params) -> list[str]:
    """Name the learning rates that an optimiser computes anew at each step, by path: another value would not last.

    It halves every rate, updates with gradients of zero, and looks which rates have changed back. Only rates and
    counters are computed.

    >>> from mlx_fp import optim
    >>> opt, params = optim.sgd(optim.step_decay(0.5, 0.9, 10)), {"w": mx.array(1.0)}
    >>> scheduled_rates(opt, opt.init(params), params)
    ['learning_rate']
    """
    halved = scale_rates(0.5)(state)
    before, counters = _named(halved, "learning_rate"), _named(halved, "step")
    grads = utils.tree_map(lambda leaf: mx.broadcast_to(mx.array(0, leaf.dtype), leaf.shape), params)
    after = halved
    for _ in range(_TRIES):
        params, after = optimizer.update(grads, after, params)
        if all((leaf != counters[path]).item() for path, leaf in _named(after, "step").items()):
            break
    return [path for path, rate in _named(after, "learning_rate").items() if (rate != before[path]).item()]


def _named(state: State, name: str) -> dict[str, mx.array]:
    return {f"{path}.{name}".lstrip("."): stage[name] for path, stage in stages(state) if name in stage}
