"""The cases of a sweep: each combination of a grid, each entry of a list, or samples of a grid, drawn by a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log
from random import Random
from typing import Any, TypeAlias

from ..core._errors import is_count
from ..core._frozen import FrozenDict
from ..core._options import Rule, check_options, number
from ._experiment import Experiment, settings

__all__ = ["Case", "Choices", "Grid", "Uniform", "cases_of", "check_grid", "choices", "log_uniform", "uniform"]

Case: TypeAlias = FrozenDict[str, object]
"""The changed settings of a trial, by path."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Values of a setting, of which a trial draws one; `choices` makes this record."""

    values: tuple[object, ...]

    def draw(self, random: Random) -> object:
        """Draw a value."""
        return self.values[int(random.random() * len(self.values))]

    def __repr__(self) -> str:
        return f"choices({', '.join(map(repr, self.values))})"


@dataclass(frozen=True, slots=True)
class Uniform:
    """A range of numbers, from which a trial draws one; `uniform` and `log_uniform` make this record."""

    low: float
    high: float
    is_log: bool = False

    def draw(self, random: Random) -> float:
        """Draw a number."""
        share = random.random()
        if self.is_log:
            return min(max(exp(log(self.low) + share * (log(self.high) - log(self.low))), self.low), self.high)
        return self.low + share * (self.high - self.low)

    def __repr__(self) -> str:
        return f"{'log_' * self.is_log}uniform({self.low}, {self.high})"


Grid: TypeAlias = Mapping[str, Sequence[object] | Choices | Uniform] | Sequence[Mapping[str, object]]
"""The values of each path, or the settings of each trial."""


def choices(*values: object) -> Choices:
    """Give a setting of a random sweep values, of which each trial draws one.

    Args:
        values: The values, each with the same probability.

    Returns:
        A value of the grid of `sweep(grid, samples=n)`.

    Raises:
        ValueError: There is no value.

    >>> choices(16, 32, 64)
    choices(16, 32, 64)
    """
    if not values:
        raise ValueError("choices takes one value or more, as in choices(16, 32)")
    return Choices(values)


def uniform(low: float, high: float) -> Uniform:
    """Give a setting of a random sweep a range of numbers, from which each trial draws one.

    Args:
        low: The least number.
        high: The greatest number.

    Returns:
        A value of the grid of `sweep(grid, samples=n)`.

    Raises:
        TypeError: A bound is no number.
        ValueError: `low` is above `high`, or a bound is not finite.

    >>> uniform(0.0, 0.5)
    uniform(0.0, 0.5)
    """
    return _range("uniform", low, high, number())


def log_uniform(low: float, high: float) -> Uniform:
    """Give a setting of a random sweep a range of numbers, of which each trial draws the logarithm.

    So each factor of ten is as probable as another. For example, `log_uniform(1e-4, 1e-1)` is usual for a rate.

    Args:
        low: The least number, above 0.
        high: The greatest number.

    Returns:
        A value of the grid of `sweep(grid, samples=n)`.

    Raises:
        TypeError: A bound is no number.
        ValueError: `low` is not above 0, `low` is above `high`, or a bound is not finite.

    >>> log_uniform(1e-4, 1e-1)
    log_uniform(0.0001, 0.1)
    """
    return _range("log_uniform", low, high, number(above=0), is_log=True)


def check_grid(grid: object, samples: int | None) -> None:
    """Refuse a grid that is neither a dict nor a list of dicts, and samples that do not fit it."""
    if samples is not None and not is_count(samples, least=1):
        raise ValueError(f"samples is a number of trials, 1 or more; got {samples!r}")
    if isinstance(grid, Mapping):
        drawn = [path for path, values in grid.items() if isinstance(values, (Choices, Uniform))]
        if drawn and samples is None:
            raise ValueError(f"{', '.join(drawn)}: values are drawn, so sweep takes samples=n, a number of trials")
        return
    if not isinstance(grid, (list, tuple)) or not all(isinstance(case, Mapping) for case in grid):
        kind = type(grid).__name__
        raise TypeError(
            f'sweep takes a dict of values by path, {{"optimizer.learning_rate": [0.1, 0.01]}}, or a list with the '
            f"settings of each trial; got {kind}"
        )
    if samples is not None:
        raise ValueError("samples draws from a dict of values by path; a list has the settings of each trial")


def cases_of(target: Experiment, grid: Grid, samples: int | None, seed: int) -> list[Case]:
    """Return the settings of each trial.

    A path has a random stream of its own, so more samples begin with the same trials, and a further path does not
    change the others. A case of a list without a path has the value of the experiment.

    >>> grid = {"seed": choices(1, 2, 3), "epochs": [5]}
    >>> [dict(case) for case in cases_of(None, grid, 2, 7)] == [dict(case) for case in cases_of(None, grid, 3, 7)][:2]
    True
    """
    if not isinstance(grid, Mapping):
        paths = dict.fromkeys(path for case in grid for path in case)
        known = settings(target)
        defaults = {path: known[path] for path in paths if path in known}
        return [FrozenDict({**defaults, **case}) for case in grid]
    if samples is None:
        return [FrozenDict(zip(grid, values, strict=True)) for values in product(*_values_by_path(grid).values())]
    drawn = {path: _draws(values, Random(f"{seed} {path}"), samples) for path, values in grid.items()}
    return [FrozenDict({path: values[i] for path, values in drawn.items()}) for i in range(samples)]


def _values_by_path(grid: Mapping[str, Any]) -> Mapping[str, Sequence[object]]:
    return grid


def _draws(values: Sequence[object] | Choices | Uniform, random: Random, samples: int) -> list[object]:
    source = values if isinstance(values, (Choices, Uniform)) else Choices(tuple(values))
    return [source.draw(random) for _ in range(samples)]


def _range(name: str, low: float, high: float, rule: Rule, *, is_log: bool = False) -> Uniform:
    check_options(name, {"low": low, "high": high}, {"low": rule, "high": rule})
    if low > high:
        raise ValueError(f"{name} takes a range from low to high; got {low!r} and {high!r}")
    return Uniform(float(low), float(high), is_log)
