"""Schedules with warm-up by name: functions of the step, to be given in place of a rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core._mlx import mx
from ..core._options import check_options, count, number
from ..core._types import Array
from ._rules import RATE

__all__ = ["one_cycle", "warmup_cosine", "wsd"]

Schedule = Callable[[Any], Array]

_ABOVE = number(above=0)


def warmup_cosine(peak: float, steps: int, *, warmup: int = 0, end: float = 0.0) -> Schedule:
    """Rise in a line from 0 to `peak`, then fall by half a cosine to `end`, and stay there.

    At step s, `peak * s / warmup`, then `end + (peak - end) * (1 + cos(pi * t)) / 2` with t from 0 to 1: Loshchilov and
    Hutter, SGDR, https://arxiv.org/abs/1608.03983, equation 5, without restarts.

    Args:
        peak: the highest rate.
        steps: the steps of the whole run, warm-up included.
        warmup: the steps of the rise; step `warmup` has the peak.
        end: the last rate.

    Raises:
        ValueError: a rate is negative, or `warmup` is not less than `steps`.

    >>> rate = warmup_cosine(1.0, 6, warmup=2)
    >>> [round(rate(mx.array(step)).item(), 3) for step in range(8)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    check_options("warmup_cosine", {"peak": peak, "end": end}, {"peak": _ABOVE, "end": RATE})
    _check_steps("warmup_cosine", steps, warmup=warmup)

    def schedule(step: Any) -> Array:
        return mx.where(_at(step) < warmup, _line(step, 0, warmup, 0.0, peak), _cosine(step, warmup, steps, peak, end))

    return schedule


def wsd(peak: float, steps: int, *, warmup: int = 0, decay: int | None = None, end: float = 0.0) -> Schedule:
    """Rise in a line from 0 to `peak`, stay there, and fall in a line to `end` over the last steps.

    Warm-up, stable, decay: Hu et al., MiniCPM, https://arxiv.org/abs/2404.06395, with the linear decay of Hägele et
    al., https://arxiv.org/abs/2405.18392.

    Args:
        peak: the highest rate.
        steps: the steps of the whole run.
        warmup: the steps of the rise.
        decay: the steps of the fall; by default a tenth of all, one or more.
        end: the last rate.

    Raises:
        ValueError: a rate is negative, or `warmup` and `decay` are more than `steps`.

    >>> rate = wsd(1.0, 8, warmup=2, decay=4)
    >>> [rate(mx.array(step)).item() for step in range(10)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    check_options("wsd", {"peak": peak, "end": end}, {"peak": _ABOVE, "end": RATE})
    fall = max(1, steps // 10) if decay is None and isinstance(steps, int) else decay
    check_options("wsd", {"decay": fall}, {"decay": count(1)})
    _check_steps("wsd", steps, warmup=warmup, decay=fall or 1)
    begin = steps - (fall or 1)

    def schedule(step: Any) -> Array:
        rising = _line(step, 0, warmup, 0.0, peak)
        return mx.where(_at(step) < warmup, rising, _line(step, begin, steps, peak, end))

    return schedule


def one_cycle(
    peak: float, steps: int, *, rise: float = 0.3, start_factor: float = 25.0, end_factor: float = 1e4
) -> Schedule:
    """Rise from `peak / start_factor` to `peak` by half a cosine, and fall by another to a small rate, and stay there.

    Smith and Topin, Super-convergence, https://arxiv.org/abs/1708.07120, in the form of PyTorch's `OneCycleLR`: the
    peak is at step `rise * steps - 1`, and step `steps - 1` has the last rate, `peak / start_factor / end_factor`.

    Args:
        peak: the highest rate.
        steps: the steps of the whole run, 2 or more.
        rise: the share of the steps before the peak.
        start_factor: how many times the first rate the peak is.
        end_factor: how many times the last rate the first is.

    Raises:
        ValueError: an option is out of its range, or the rise takes less than a step.

    >>> rate = one_cycle(1.0, 10)
    >>> [round(rate(mx.array(step)).item(), 3) for step in (0, 2, 9)]
    [0.04, 1.0, 0.0]
    """
    given = {"peak": peak, "steps": steps, "rise": rise, "start_factor": start_factor, "end_factor": end_factor}
    rules = {"peak": _ABOVE, "steps": count(2), "rise": number(above=0, below=1)}
    check_options("one_cycle", given, {**rules, "start_factor": number(1), "end_factor": number(1)})
    top, last = rise * steps - 1, steps - 1
    if top <= 0:
        raise ValueError(f"rise={rise} of one_cycle takes {rise * steps:g} of {steps} steps; it takes more than one")
    start = peak / start_factor

    def schedule(step: Any) -> Array:
        rising = _cosine(step, 0, top, start, peak)
        return mx.where(_at(step) <= top, rising, _cosine(step, top, last, peak, start / end_factor))

    return schedule


def _check_steps(name: str, steps: int, **parts: int) -> None:
    check_options(name, {"steps": steps, **parts}, {"steps": count(1), **dict.fromkeys(parts, count(0))})
    if sum(parts.values()) > steps or parts == {"warmup": steps}:
        told = " and ".join(f"{part}={value}" for part, value in parts.items())
        raise ValueError(f"{told} of {name} take more than the {steps} steps there are")


def _at(step: Any) -> Array:
    return mx.array(step).astype(mx.float32)


def _share(step: Any, begin: float, end: float) -> Array:
    """Return how far a step is between two others, from 0 to 1."""
    return mx.clip((_at(step) - begin) / max(end - begin, 1e-9), 0.0, 1.0)


def _line(step: Any, begin: float, end: float, first: float, last: float) -> Array:
    share = _share(step, begin, end)
    return first * (1 - share) + last * share


def _cosine(step: Any, begin: float, end: float, first: float, last: float) -> Array:
    return last + (first - last) * 0.5 * (1 + mx.cos(math.pi * _share(step, begin, end)))
