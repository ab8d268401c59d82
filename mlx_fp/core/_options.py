"""Rules for options: an option that breaks its rule raises an error at the call that sets it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TypeVar

from ._errors import is_count

__all__ = [
    "FLAG",
    "FUNCTION",
    "Rule",
    "check_options",
    "count",
    "is_unread",
    "number",
    "optional",
    "pair",
    "text_of",
    "unread",
]

T = TypeVar("T")

_unread: ContextVar[bool] = ContextVar("unread", default=False)
"""Whether options may be arrays of a trace, which have no values."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Describe the valid values of an option, in words and as a test."""

    words: str
    holds: Callable[[object], bool]
    of_type: bool = False
    """Whether the rule concerns types only. A value that breaks such a rule is a TypeError."""


FLAG = Rule("True or False", lambda value: isinstance(value, bool), of_type=True)
"""The rule for a flag."""

FUNCTION = Rule("a function", callable, of_type=True)
"""The rule for a function."""


def number(
    least: float = -math.inf, most: float = math.inf, *, below: float = math.inf, above: float = -math.inf
) -> Rule:
    """Return the rule for a finite number `x`: `least <= x <= most` and `above < x < below`.

    >>> number(0, below=1).words, number(0, below=1).holds(1.0), number(0).holds(math.nan), number(0).holds("a")
    ('a finite number of at least 0 and below 1', False, False, False)
    """
    limits = {"of at least": least, "above": above, "at most": most, "below": below}
    bounds = " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if math.isfinite(limit))

    def holds(value: object) -> bool:
        x = _as_float(value)
        return x is not None and math.isfinite(x) and least <= x <= most and above < x < below

    return Rule(f"a finite number {bounds}".rstrip(), holds)


def count(least: int) -> Rule:
    """Return the rule for an int of `least` or more."""
    return Rule(f"a count, {least} or more", lambda value: is_count(value, least=least))


def pair(rule: Rule) -> Rule:
    """Return the rule for a list or tuple of two values that both follow `rule`."""

    def holds(values: object) -> bool:
        return isinstance(values, (list, tuple)) and len(values) == 2 and all(map(rule.holds, values))

    return Rule(f"two of these: {rule.words}", holds)


def optional(rule: Rule) -> Rule:
    """Return the rule for None or a value that follows `rule`."""
    return Rule(f"{rule.words}, or None", lambda value: value is None or rule.holds(value), rule.of_type)


def check_options(taker: str, options: Mapping[str, object], rules: Mapping[str, Rule]) -> None:
    """Check options against the rules of their names; `taker` is the name of the function in messages.

    A number, a list or a tuple that breaks its rule is a ValueError. Any other value that breaks its rule, and any
    value that breaks a rule about types, is a TypeError.

    >>> check_options("sgd", {"learning_rate": -0.1, "seed": "x"}, {"learning_rate": number(0)})
    Traceback (most recent call last):
    ValueError: learning_rate of sgd is a finite number of at least 0; got -0.1
    """
    for name, value in options.items():
        rule = rules.get(name)
        if rule is not None and not is_unread(value) and not rule.holds(value):
            has_type = _as_float(value) is not None or isinstance(value, (bool, list, tuple))
            error = ValueError if has_type and not rule.of_type else TypeError
            raise error(f"{name} of {taker} is {rule.words}; got {value!r}")


def unread(fn: Callable[[], T]) -> T:
    """Call a function within which options may be arrays of a trace. Such options are not checked: they have no value.

    >>> from ._mlx import mx
    >>> unread(lambda: is_unread(mx.array(0.1))), unread(lambda: is_unread(0.1)), is_unread(mx.array(0.1))
    (True, False, False)
    """

    def call() -> T:
        _unread.set(True)
        return fn()

    return copy_context().run(call)


def is_unread(value: object) -> bool:
    """Tell whether an option is an array whose value cannot be read now."""
    return _unread.get() and hasattr(value, "dtype")


def text_of(value: float) -> str:
    """Return the text of a number in the name of a wrapper. It is "array" where its value cannot be read now."""
    return "array" if is_unread(value) else f"{value:g}"


def _as_float(value: object) -> float | None:
    """Return a number, or an array of one element, as a float. Return None for anything else."""
    if isinstance(value, (bool, str, bytes)) or getattr(value, "size", 1) != 1:
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # an array of numpy or MLX, or else a TypeError
    except (TypeError, ValueError):
        return None
