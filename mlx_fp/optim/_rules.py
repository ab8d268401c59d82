"""What the options of optimisers and schedules may be."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ..core._options import FLAG, Rule, count, number, optional, pair

__all__ = ["OPTIMIZERS", "RATE", "SCHEDULES"]

RATE = number(0)
"""The rule of a rate that is a number."""

_SHARE, _PART = number(0, 1), number(0, below=1)


def _rate_or_schedule(value: Any) -> bool:
    return callable(value) or RATE.holds(value)


def _one_or_pair(value: Any) -> bool:
    return RATE.holds(value) or pair(RATE).holds(value)


def _functions(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(callable, value))


def _rising(value: Any) -> bool:
    steps = isinstance(value, (list, tuple)) and all(isinstance(step, int) and step >= 0 for step in value)
    return steps and all(one < other for one, other in pairwise(value))


OPTIMIZERS: Mapping[str, Rule] = {
    "learning_rate": Rule(f"{RATE.words}, or a schedule, a function of the step", _rate_or_schedule),
    "alpha": _SHARE,
    "beta_1": optional(_PART),
    "betas": pair(_PART),
    "bias_correction": FLAG,
    "clip_threshold": number(above=0),
    "dampening": number(),
    "decay_rate": number(),
    "eps": Rule(f"{RATE.words}, or two of these", _one_or_pair),
    "momentum": _SHARE,
    "nesterov": FLAG,
    "ns_steps": count(1),
    "relative_step": FLAG,
    "rho": _SHARE,
    "scale_parameter": FLAG,
    "warmup_init": FLAG,
    "weight_decay": RATE,
}
"""The rules of the options of MLX's optimisers, by name."""

SCHEDULES: Mapping[str, Rule] = {
    "boundaries": Rule("a list of steps, each after the one before", _rising),
    "decay_rate": number(above=0),
    "decay_steps": number(1),
    "end": RATE,
    "init": RATE,
    "schedules": Rule("a list of schedules, functions of the step", _functions),
    "step_size": number(1),
    "steps": number(1),
}
"""The rules of the options of schedules, by name."""
