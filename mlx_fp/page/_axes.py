"""Axes of a chart: a range, round ticks, and a logarithmic scale where the values fit it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10

__all__ = ["Axis", "axis"]

_DECADES = 2.0
"""The decades beyond which positive values get a logarithmic scale."""

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
        low, high = 0.0 if 0 <= low <= 0.2 * high else low, max(high, low + 1)
        return Axis(low, high, False, _ticks(low, high, max(_round_step((high - low) / about), 1.0), inside=True))
    if low > 0 and log10(high) - log10(low) > _DECADES:
        return _logarithmic(low, high)
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-290:
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
    return _short(10.0**power, 0 if power >= 0 else -power) if -4 <= power < 13 else f"1e{power}"


def _round_step(step: float) -> float:
    """Return the next step of the form 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next((factor * power for factor in (1, 2, 5) if step <= factor * power * (1 + 1e-9)), 10 * power)


def _ticks(low: float, high: float, step: float, *, inside: bool = False) -> tuple[tuple[float, str], ...]:
    first, last = (ceil(low / step - 1e-9), floor(high / step + 1e-9)) if inside else (low / step, high / step)
    decimals = max(0, -floor(log10(step) + 1e-9))
    values = [number * step for number in range(round(first), min(round(last), round(first) + _MOST_TICKS) + 1)]
    largest = max((abs(value) for value in values), default=0.0)
    if largest < 1e-3 or largest >= 1e15:
        return tuple((value, f"{value:.3g}".replace("e-0", "e-").replace("e+", "e")) for value in values)
    return tuple((value, _short(value, decimals, largest)) for value in values)


def _short(value: float, decimals: int, largest: float | None = None) -> str:
    """Return a label; thousands and millions are shortened where the largest label is long.

    >>> _short(1500.0, 0), _short(20000.0, 0), _short(0.25, 2), _short(1.5e6, 0)
    ('1,500', '20k', '0.25', '1.5M')
    """
    size = abs(value) if largest is None else largest
    if (value and size >= 1e4) or (value and largest is None and size >= 1e3 and size == 10 ** round(log10(size))):
        factor, unit = next((f, u) for f, u in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")) if size >= f)
        return f"{value / factor:.6g}{unit}"
    return f"{value:,.{decimals}f}" if value else "0" if decimals == 0 else f"{0:.{decimals}f}"
