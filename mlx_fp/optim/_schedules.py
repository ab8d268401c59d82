"""Schedules with a warm-up: functions of the step that take the place of a learning rate."""

from __future__ import annotations

import math
from typing import Protocol, TypeAlias

from ..core._mlx import mx
from ..core._options import check_options, count, number
from ..core._types import Array
from ._rules import RATE

__all__ = ["Schedule", "one_cycle", "warmup_cosine", "wsd"]

StepNumber: TypeAlias = "Array | int"
"""The number of the step, from 0: an array without axes, or an int."""


class Schedule(Protocol):
    """A learning rate that depends on the step."""

    def __call__(self, step: StepNumber, /) -> Array:
        """Return the rate at a step, an array without axes."""


_POSITIVE = number(above=0)


def warmup_cosine(peak: float, steps: int, *, warmup: int = 0, end: float = 0.0) -> Schedule:
    """Make a schedule that rises linearly from 0 to `peak`, then falls to `end` along half a cosine, and stays there.

    The rate at step s is `peak * s / warmup`. After the warm-up it is `end + (peak - end) * (1 + cos(pi * t)) / 2`,
    with t from 0 to 1. See Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983, equation 5, without restarts.

    Args:
        peak: The highest rate.
        steps: The number of steps of the whole run, including the warm-up.
        warmup: The number of steps of the rise; the rate at step `warmup` is the peak. 0, the default, is no rise.
        end: The last rate; 0 by default.

    Returns:
        A function of the step, for example for `optim.adamw(warmup_cosine(1e-3, 1000, warmup=100))`.

    Raises:
        ValueError: A rate is negative, or `warmup` is not less than `steps`.

    >>> rate = warmup_cosine(1.0, 6, warmup=2)
    >>> [round(rate(mx.array(step)).item(), 3) for step in range(8)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    check_options("warmup_cosine", {"peak": peak, "end": end}, {"peak": _POSITIVE, "end": RATE})
    _check_steps("warmup_cosine", steps, warmup=warmup)

    def schedule(step: StepNumber) -> Array:
        return mx.where(
            _as_float(step) < warmup, _line(step, 0, warmup, 0.0, peak), _cosine(step, warmup, steps, peak, end)
        )

    return schedule


def wsd(peak: float, steps: int, *, warmup: int = 0, decay: int | None = None, end: float = 0.0) -> Schedule:
    """Make a schedule that rises linearly from 0 to `peak`, stays there, and falls linearly to `end` at the end.

    The name stands for warm-up, stable, decay. See Hu et al., MiniCPM, https://arxiv.org/abs/2404.06395, and for the
    linear decay Hägele et al., https://arxiv.org/abs/2405.18392.

    Args:
        peak: The highest rate.
        steps: The number of steps of the whole run.
        warmup: The number of steps of the rise; 0 by default.
        decay: The number of steps of the fall; by default a tenth of `steps`, at least one.
        end: The last rate; 0 by default.

    Returns:
        A function of the step.

    Raises:
        ValueError: A rate is negative, or `warmup` and `decay` are together more than `steps`.

    >>> rate = wsd(1.0, 8, warmup=2, decay=4)
    >>> [rate(mx.array(step)).item() for step in range(10)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    check_options("wsd", {"peak": peak, "end": end}, {"peak": _POSITIVE, "end": RATE})
    fall = max(1, steps // 10) if decay is None and isinstance(steps, int) else decay
    check_options("wsd", {"decay": fall}, {"decay": count(1)})
    _check_steps("wsd", steps, warmup=warmup, decay=fall or 1)
    begin = steps - (fall or 1)

    def schedule(step: StepNumber) -> Array:
        rising = _line(step, 0, warmup, 0.0, peak)
        return mx.where(_as_float(step) < warmup, rising, _line(step, begin, steps, peak, end))

    return schedule


def one_cycle(
    peak: float, steps: int, *, rise: float = 0.3, start_factor: float = 25.0, end_factor: float = 1e4
) -> Schedule:
    """Make a schedule that rises to `peak` along half a cosine, falls to a small rate along another, and stays there.

    The form is that of PyTorch's `OneCycleLR`. The first rate is `peak / start_factor`. The peak is at step
    `rise * steps - 1`. The last rate is `peak / start_factor / end_factor`, from step `steps - 1` on. See Smith and
    Topin, Super-convergence, https://arxiv.org/abs/1708.07120.

    Args:
        peak: The highest rate.
        steps: The number of steps of the whole run, 2 or more.
        rise: The part of the steps before the peak, between 0 and 1; 0.3 by default.
        start_factor: The peak divided by the first rate; 25 by default.
        end_factor: The first rate divided by the last rate; 10,000 by default.

    Returns:
        A function of the step.

    Raises:
        ValueError: An option is out of its range, or the rise is not longer than one step.

    >>> rate = one_cycle(1.0, 10)
    >>> [round(rate(mx.array(step)).item(), 3) for step in (0, 2, 9)]
    [0.04, 1.0, 0.0]
    """
    options = {"peak": peak, "steps": steps, "rise": rise, "start_factor": start_factor, "end_factor": end_factor}
    rules = {"peak": _POSITIVE, "steps": count(2), "rise": number(above=0, below=1)}
    check_options("one_cycle", options, {**rules, "start_factor": number(1), "end_factor": number(1)})
    top, last = rise * steps - 1, steps - 1
    if top <= 0:
        raise ValueError(f"rise={rise} of one_cycle takes {rise * steps:g} of {steps} steps; it takes more than one")
    start = peak / start_factor

    def schedule(step: StepNumber) -> Array:
        rising = _cosine(step, 0, top, start, peak)
        return mx.where(_as_float(step) <= top, rising, _cosine(step, top, last, peak, start / end_factor))

    return schedule


def _check_steps(name: str, steps: int, **parts: int) -> None:
    check_options(name, {"steps": steps, **parts}, {"steps": count(1), **dict.fromkeys(parts, count(0))})
    if sum(parts.values()) > steps or parts == {"warmup": steps}:
        texts = " and ".join(f"{part}={value}" for part, value in parts.items())
        raise ValueError(f"{texts} of {name} take more than the {steps} steps of the run")


def _as_float(step: StepNumber) -> Array:
    return mx.array(step).astype(mx.float32)


def _progress(step: StepNumber, begin: float, end: float) -> Array:
    """Return the position of a step between two other steps, from 0 to 1."""
    return mx.clip((_as_float(step) - begin) / max(end - begin, 1e-9), 0.0, 1.0)


def _line(step: StepNumber, begin: float, end: float, first: float, last: float) -> Array:
    progress = _progress(step, begin, end)
    return first * (1 - progress) + last * progress


def _cosine(step: StepNumber, begin: float, end: float, first: float, last: float) -> Array:
    return last + (first - last) * 0.5 * (1 + mx.cos(math.pi * _progress(step, begin, end)))
