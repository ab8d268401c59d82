"""Immutable tables of named values. Entries may extend each other: collates, dataflows, presets, packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from toolz import compose_left, merge

from ._errors import unknown
from ._frozen import FrozenDict
from ._pickling import Picklable

__all__ = ["Registry"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Hold a spec and the names of its bases."""

    spec: object
    bases: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Registry(Picklable):
    """Map names to values, which may extend each other.

    An entry may extend other entries, its bases. Dicts are merged, bases first, so the keys of the entry win. Functions
    are composed in the same order. `registry[name]` returns the merged or composed value. An unknown name is a KeyError
    with candidates.

    Args:
        kind: The kind of the values, for messages. For example, "collate".

    >>> collates = Registry("collate").add("image", {"x": "image"}).add("labelled", {"y": "label"}, extends="image")
    >>> collates["labelled"], collates
    ({'x': 'image', 'y': 'label'}, Registry('collate': image, labelled))
    """

    kind: str
    _entries: Mapping[str, _Entry] = field(default_factory=FrozenDict)

    def add(self, name: str, spec: object, *, extends: str | tuple[str, ...] | list[str] = ()) -> Registry:
        """Return a registry with one more entry. An entry of the same name is replaced.

        Args:
            name: The name of the entry.
            spec: A dict, a function, or another value.
            extends: The name of a base, or the names of several bases. Default: none.

        Raises:
            ValueError: A base is missing, or extends the entry itself.
            TypeError: The entry and its bases are neither all dicts nor all functions.

        >>> Registry("flow").add("a", len).add("a", abs, extends="a")
        Traceback (most recent call last):
        ValueError: the flow 'a' extends itself: a -> a
        """
        bases = (extends,) if isinstance(extends, str) else tuple(extends)
        registry = replace(self, _entries=FrozenDict({**self._entries, name: _Entry(_copy_spec(spec), bases)}))
        for other in (name, *registry):  # other entries may extend this one
            registry._resolve(other)
        return registry

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise KeyError(unknown(self.kind, name, self._entries))
        return self._resolve(name)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self._entries) or 'empty'})"

    def _resolve(self, name: str) -> Any:
        names = dict.fromkeys(self._with_bases(name, ()))  # a base that two bases share counts once
        return _copy_spec(_combine_specs(f"{self.kind} {name!r}", [self._entries[base].spec for base in names]))

    def _with_bases(self, name: str, through: tuple[str, ...]) -> Iterator[str]:
        """Yield the names of the direct and indirect bases of an entry, then its own name."""
        if name in through:
            raise ValueError(f"the {self.kind} {name!r} extends itself: {' -> '.join((*through, name))}")
        if name not in self._entries:
            others = [other for other in self._entries if other not in through]
            raise ValueError(unknown(f"base of {self.kind} {through[-1]!r},", name, others))
        for base in self._entries[name].bases:
            yield from self._with_bases(base, (*through, name))
        yield name


def _copy_spec(spec: object) -> object:
    """Copy nested dicts and lists, because their owner may change them later."""
    if isinstance(spec, Mapping):
        return {key: _copy_spec(value) for key, value in spec.items()}
    return list(map(_copy_spec, spec)) if isinstance(spec, list) else spec


def _combine_specs(entry: str, specs: list[Any]) -> object:
    """Merge dicts or compose functions; `entry` is the kind and name for the message."""
    if all(isinstance(spec, Mapping) for spec in specs):
        return merge(*specs)
    if len(specs) == 1:
        return specs[0]
    if all(map(callable, specs)):
        return compose_left(*specs)
    kinds = ", ".join(type(spec).__name__ for spec in specs)
    raise TypeError(f"the {entry} and its bases must be all dicts or all functions, to be joined; they are {kinds}")
