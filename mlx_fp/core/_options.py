"""Rules of options by name: an option that breaks its rule is an error where it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import is_count

__all__ = ["FLAG", "FUNCTION", "Rule", "check_options", "count", "number", "optional", "pair"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What an option may be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]
    of_type: bool = False
    """Whether it is of types alone, so that what breaks it is a TypeError."""


FLAG = Rule("True or False", lambda value: isinstance(value, bool), of_type=True)
"""The rule of a flag."""

FUNCTION = Rule("a function", callable, of_type=True)
"""The rule of a function."""


def number(
    least: float = -math.inf, most: float = math.inf, *, below: float = math.inf, above: float = -math.inf
) -> Rule:
    """Make the rule of a finite number: from `least` to `most`, over `above` and under `below`.

    >>> number(0, below=1).words, number(0, below=1).holds(1.0), number(0).holds(math.nan), number(0).holds("a")
    ('a finite number of at least 0 and below 1', False, False, False)
    """
    named = {"of at least": least, "above": above, "at most": most, "below": below}
    bounds = " and ".join(f"{words} {bound:g}" for words, bound in named.items() if math.isfinite(bound))

    def holds(value: Any) -> bool:
        found = _as_float(value)
        return found is not None and math.isfinite(found) and least <= found <= most and above < found < below

    return Rule(f"a finite number {bounds}".rstrip(), holds)


def count(least: int) -> Rule:
    """Make the rule of an int of `least` or more."""
    return Rule(f"a count, {least} or more", lambda value: is_count(value, least=least))


def pair(rule: Rule) -> Rule:
    """Make the rule of two values that each follow a rule."""

    def holds(values: Any) -> bool:
        return isinstance(values, (list, tuple)) and len(values) == 2 and all(map(rule.holds, values))

    return Rule(f"two of these: {rule.words}", holds)


def optional(rule: Rule) -> Rule:
    """Make the rule of a value that may be None."""
    return Rule(f"{rule.words}, or None", lambda value: value is None or rule.holds(value), rule.of_type)


def check_options(taker: str, given: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raise ValueError for a number, TypeError for anything else, that breaks the rule of its name.

    >>> check_options("sgd", {"learning_rate": -0.1, "seed": "x"}, {"learning_rate": number(0)})
    Traceback (most recent call last):
    ValueError: learning_rate of sgd is a finite number of at least 0; got -0.1
    """
    for name, value in given.items():
        rule = rules.get(name)
        if rule is not None and not rule.holds(value):
            known = _as_float(value) is not None or isinstance(value, (bool, list, tuple))
            error = ValueError if known and not rule.of_type else TypeError
            raise error(f"{name} of {taker} is {rule.words}; got {value!r}")


def _as_float(value: Any) -> float | None:
    """Return a number, or an array of one, as a float; None for anything else."""
    if isinstance(value, (bool, str, bytes)) or getattr(value, "size", 1) != 1:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
