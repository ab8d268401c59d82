"""A layer made again from changed parts."""

from __future__ import annotations

from dataclasses import replace

from ..tree._select import Select
from ._layer import Change, Layer

__all__ = ["rebuilt", "without_init"]


def rebuilt(target: Layer, change: Change) -> Layer:
    """Rebuild a layer from changed parts; it keeps its own rules, and its name if it is a composition."""
    old: list[tuple[str, Layer]] = []
    new: list[tuple[str, Layer]] = []

    def recorded(name: str, part: Layer) -> Layer:
        old.append((name, part))
        new.append((name, change(name, part)))
        return new[-1][1]

    assert target.apply.rebuild is not None
    made = target.apply.rebuild(recorded)
    if all(before is after for (_, before), (_, after) in zip(old, new, strict=True)):
        return target
    own = target.trainable.rules[len(_rules_of(old)) :]
    made = replace(made, trainable=replace(made.trainable, rules=(*_rules_of(new), *own)))
    return replace(made, name=target.name, label=target.label) if target.parts else made


def without_init(target: Layer) -> Layer:
    """Return a layer that only runs: it and its parts drop their `init`, which may hold arrays."""
    changed = target if target.apply.rebuild is None else rebuilt(target, lambda name, part: without_init(part))
    return replace(changed, init=dict)


def _rules_of(parts: list[tuple[str, Layer]]) -> tuple[tuple[Select, bool], ...]:
    """Return the rules that a layer has from its parts."""
    rules = (part.trainable.inside(name) if name else part.trainable.rules for name, part in parts)
    return tuple(rule for each in rules for rule in each)
