"""Axes of a chart: a range, round ticks, and a logarithmic scale where the values fit it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

__all__ = ["Axis", "axis"]

_DECADES = 2.0
"""The decades beyond which positive values get a logarithmic scale."""

_LEAST = 1e-290
"""Values and distances below this are no more than zero, because their quotients overflow."""

_MOST_TICKS = 10


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart, from its lowest to its highest value."""

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]
    """The values with a line, and their labels."""

    def place(self, value: float) -> float:
        """Return the place of a value: 0 at the lowest value of the axis, 1 at the highest."""
        if self.log:
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)


def axis(values: Iterable[float], *, whole: bool = False, about: int = 6) -> Axis:
    """Return the axis for some finite values.

    Args:
        values: The values; none of them is an axis from 0 to 1.
        whole: Whether the axis counts, for example steps. It then is linear, ends at its largest value, and has ticks
            at whole numbers. Default: False.
        about: About the number of ticks.

    >>> axis([0.3, 1.9]).ticks
    ((0.0, '0.0'), (0.5, '0.5'), (1.0, '1.0'), (1.5, '1.5'), (2.0, '2.0'))
    >>> [label for _, label in axis([0.02, 400.0]).ticks]
    ['0.01', '0.1', '1', '10', '100', '1k']
    """
    listed = list(values) or [0.0, 1.0]
    low, high = min(listed), max(listed)
    if whole:
        low, high = 0.0 if 0 <= low <= 0.2 * high else low, max(high, low + max(1.0, abs(low) * 1e-6))
        return Axis(low, high, False, _ticks(low, high, max(_round_step((high - low) / about), 1.0), inside=True))
    if low > _LEAST and log10(high) - log10(low) > _DECADES:
        return _logarithmic(low, high)
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < _LEAST:
        room = abs(low) / 2 or 1.0
        low, high = low - room, high + room
    step = _round_step((high - low) / about)
    low, high = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
    return Axis(low, high, False, _ticks(low, high, step))


def _logarithmic(low: float, high: float) -> Axis:
    first, last = floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9)
    stride = max(1, ceil((last - first) / 6))
    powers = range(first, last + 1, stride)
    return Axis(10.0**first, 10.0**last, True, tuple((10.0**power, _power_label(power)) for power in powers))


def _power_label(power: int) -> str:
    if not -4 <= power < 13:
        return f"1e{power}"
    factor, unit = _unit(10.0**power)
    return f"{10.0**power / factor:.{max(-power, 0)}f}{unit}"


def _round_step(step: float) -> float:
    """Return the next step of the form 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next((factor * power for factor in (1, 2, 5) if step <= factor * power * (1 + 1e-9)), 10 * power)


def _ticks(low: float, high: float, step: float, *, inside: bool = False) -> tuple[tuple[float, str], ...]:
    first, last = (ceil(low / step - 1e-9), floor(high / step + 1e-9)) if inside else (low / step, high / step)
    values = [number * step for number in range(round(first), min(round(last), round(first) + _MOST_TICKS) + 1)]
    return tuple(zip(values, _labels(values, step), strict=True))


def _labels(values: Sequence[float], step: float) -> list[str]:
    """Return the labels of ticks at equal distances, with as many decimals as tell them apart.

    >>> _labels([0.0, 1500.0], 500.0), _labels([0.0, 20000.0], 5000.0), _labels([2.5e-6], 1e-7)
    (['0', '1,500'], ['0', '20k'], ['2.5e-6'])
    """
    largest = max((abs(value) for value in values), default=0.0)
    if largest < 1e-3 or largest >= 1e15:
        return [f"{value:.3g}".replace("e-0", "e-").replace("e+", "e") for value in values]
    factor, unit = _unit(largest) if largest >= 1e4 else (1.0, "")
    decimals = max(0, -floor(log10(step / factor) + 1e-9))
    return [f"{value / factor:,.{decimals}f}{unit}" if value or not unit else "0" for value in values]


def _unit(size: float) -> tuple[float, str]:
    units = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next((each for each in units if size >= each[0] * (1 - 1e-9)), (1.0, ""))
