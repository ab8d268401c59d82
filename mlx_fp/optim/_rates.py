"""The learning rates in the state of an optimiser: their values, and which of them follow a schedule."""

from __future__ import annotations

from ..core._mlx import mx, utils
from ..core._types import Params, State
from ._optimizer import Optimizer
from ._state import scale_rates, stages

__all__ = ["learning_rates", "scheduled_rates"]

_TRIES = 64
"""The maximum number of updates until each inner optimiser has taken a step; one that accumulates skips updates."""


def learning_rates(opt_state: State) -> dict[str, float]:
    """Return the learning rates in the state of an optimiser or of a step, by path.

    >>> from mlx_fp import optim
    >>> learning_rates(optim.clip_norm(1.0)(optim.sgd(0.5)).init({"w": mx.array(1.0)}))
    {'inner.learning_rate': 0.5}
    """
    return {path: float(rate) for path, rate in _leaves_named("learning_rate", opt_state).items()}


def scheduled_rates(optimizer: Optimizer, state: State, params: Params) -> list[str]:
    """List the paths of the learning rates that an optimiser sets at each step: a changed value would not last.

    The function halves every rate, updates with gradients of zero, and finds the rates that have changed back. MLX
    computes only rates and counters for this.

    >>> from mlx_fp import optim
    >>> opt, params = optim.sgd(optim.step_decay(0.5, 0.9, 10)), {"w": mx.array(1.0)}
    >>> scheduled_rates(opt, opt.init(params), params)
    ['learning_rate']
    """
    halved = scale_rates(0.5)(state)
    before, counters = _leaves_named("learning_rate", halved), _leaves_named("step", halved)
    grads = utils.tree_map(lambda leaf: mx.broadcast_to(mx.array(0, leaf.dtype), leaf.shape), params)
    after = halved
    for _ in range(_TRIES):
        params, after = optimizer.update(grads, after, params)
        if all((leaf != counters[path]).item() for path, leaf in _leaves_named("step", after).items()):
            break
    return [path for path, rate in _leaves_named("learning_rate", after).items() if (rate != before[path]).item()]


def _leaves_named(name: str, state: State) -> dict[str, mx.array]:
    """Return the leaves with a name in the states of all wrappers and optimisers, by path."""
    return {f"{path}.{name}".lstrip("."): stage[name] for path, stage in stages(state) if name in stage}
