"""The rules of the options of optimisers and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from ..core._options import FLAG, Rule, count, number, optional, pair

__all__ = ["OPTIMIZERS", "RATE", "SCHEDULES"]

RATE = number(0)
"""The rule of a rate that is a number."""

_UP_TO_ONE, _BELOW_ONE = number(0, 1), number(0, below=1)


def _is_rate_or_schedule(value: object) -> bool:
    return callable(value) or RATE.holds(value)


def _is_rate_or_pair(value: object) -> bool:
    return RATE.holds(value) or pair(RATE).holds(value)


def _are_functions(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(callable, value))


def _are_increasing_steps(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or not all(isinstance(step, int) and step >= 0 for step in value):
        return False
    return all(step < following for step, following in pairwise(value))


OPTIMIZERS: Mapping[str, Rule] = {
    "learning_rate": Rule(f"{RATE.words}, or a schedule, a function of the step", _is_rate_or_schedule),
    "alpha": _UP_TO_ONE,
    "beta_1": optional(_BELOW_ONE),
    "betas": pair(_BELOW_ONE),
    "bias_correction": FLAG,
    "clip_threshold": number(above=0),
    "dampening": number(),
    "decay_rate": number(),
    "eps": Rule(f"{RATE.words}, or two of these", _is_rate_or_pair),
    "momentum": _UP_TO_ONE,
    "nesterov": FLAG,
    "ns_steps": count(1),
    "relative_step": FLAG,
    "rho": _UP_TO_ONE,
    "scale_parameter": FLAG,
    "warmup_init": FLAG,
    "weight_decay": RATE,
}
"""The rules of the options of MLX's optimisers, by name."""

SCHEDULES: Mapping[str, Rule] = {
    "boundaries": Rule("a list of steps, each after the one before", _are_increasing_steps),
    "decay_rate": number(above=0),
    "decay_steps": number(1),
    "end": RATE,
    "init": RATE,
    "schedules": Rule("a list of schedules, functions of the step", _are_functions),
    "step_size": number(1),
    "steps": number(1),
}
"""The rules of the options of schedules, by name."""
