"""The verbs of the library as records with names, and the orders of verbs that make no sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ._pass import Backward, Verb

__all__ = ["NamedVerb", "check_accumulation", "check_order"]

_CUTS = "the rows of a private pass are computed one by one, so there is no batch to cut: leave {inner} out"
_NOISE_PER_PART = "each part would get the noise of a whole batch: leave {outer} out"
_NOISE_TWICE = "{outer} uses gradients several times, each time with the same noise: put {inner} last"
_TWICE = "one of them is enough: leave the other out"

_REASONS = {
    ("in_parts", "private"): _CUTS,
    ("abreast", "private"): _CUTS,
    ("private", "in_parts"): _NOISE_PER_PART,
    ("private", "abreast"): _NOISE_PER_PART,
    ("private", "sam"): _NOISE_TWICE,
    ("private", "pcgrad"): _NOISE_TWICE,
    ("private", "private"): _TWICE,
    ("sam", "sam"): _TWICE,
    ("pcgrad", "pcgrad"): _TWICE,
}
"""The reason why a verb must not enclose another one, by the names of the inner and of the outer verb."""


@dataclass(frozen=True, slots=True, repr=False)
class NamedVerb:
    """A verb of the library: a function from a pass function to another, with a name and a text."""

    name: str
    label: str
    verb: Verb

    def __call__(self, backward: Backward) -> Backward:
        """Return the changed pass function."""
        return self.verb(backward)

    def __repr__(self) -> str:
        return self.label


def check_order(verbs: Sequence[Verb], processes: int) -> None:
    """Raise ValueError, with the remedy, for an order of verbs that makes no sense. The first is nearest to the loss.

    A verb of the user may stand anywhere.

    >>> one, other = (NamedVerb(name, f"{name}(…)", lambda backward: backward) for name in ("private", "sam"))
    >>> check_order([other, one], 1)
    >>> check_order([other, other], 1)
    Traceback (most recent call last):
    ValueError: sam(…) encloses sam(…), and one of them is enough: leave the other out
    """
    named = [verb for verb in verbs if isinstance(verb, NamedVerb)]
    for inner, outer in combinations(named, 2):
        if reason := _REASONS.get((inner.name, outer.name)):
            raise ValueError(f"{outer!r} encloses {inner!r}, and {reason.format(inner=repr(inner), outer=repr(outer))}")
    if processes > 1 and (private := _private(verbs)):
        raise ValueError(f"across={processes} processes encloses {private!r}, and each process would add its own noise")


def check_accumulation(verbs: Sequence[Verb]) -> None:
    """Raise ValueError where the verbs of a step do not allow updates on several batches."""
    if private := _private(verbs):
        raise ValueError(f"accumulate joins several passes, and {private!r} adds noise to each: use larger batches")


def _private(verbs: Sequence[Verb]) -> NamedVerb | None:
    """Return the verb `private` among verbs."""
    return next((verb for verb in verbs if isinstance(verb, NamedVerb) and verb.name == "private"), None)
