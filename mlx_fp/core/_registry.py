"""Immutable tables of named values that extend each other: collates, dataflows, presets, packs."""

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
    spec: Any
    bases: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Registry(Picklable):
    """A table of values by name; `kind` says of what, in errors.

    An entry may extend others: dicts are merged in order, bases first, the entry's own keys last; functions are
    composed in that order. `registry[name]` gives the whole of it, KeyError with candidates for a name that is not
    there.

    >>> collates = Registry("collate").add("image", {"x": "image"}).add("labelled", {"y": "label"}, extends="image")
    >>> collates["labelled"], collates
    ({'x': 'image', 'y': 'label'}, Registry('collate': image, labelled))
    """

    kind: str
    _entries: Mapping[str, _Entry] = field(default_factory=FrozenDict)

    def add(self, name: str, spec: Any, *, extends: str | tuple[str, ...] | list[str] = ()) -> Registry:
        """Return a registry with one more entry, or another one of that name.

        Raise ValueError for a base that is not there or that extends the entry itself; TypeError where dicts and
        functions, or other values, would have to be joined.

        >>> Registry("flow").add("a", len).add("a", abs, extends="a")
        Traceback (most recent call last):
        ValueError: the flow 'a' extends itself: a -> a
        """
        bases = (extends,) if isinstance(extends, str) else tuple(extends)
        made = replace(self, _entries=FrozenDict({**self._entries, name: _Entry(_kept(spec), bases)}))
        for other in (name, *made):  # those that extend it too
            made._resolve(other)
        return made

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
        line = dict.fromkeys(self._line(name, ()))  # a base that two bases share comes once
        return _kept(_joined(f"{self.kind} {name!r}", [self._entries[one].spec for one in line]))

    def _line(self, name: str, through: tuple[str, ...]) -> Iterator[str]:
        """Yield the names of what an entry is made of, bases first."""
        if name in through:
            raise ValueError(f"the {self.kind} {name!r} extends itself: {' -> '.join((*through, name))}")
        if name not in self._entries:
            others = [other for other in self._entries if other not in through]
            raise ValueError(unknown(f"base of {self.kind} {through[-1]!r},", name, others))
        for base in self._entries[name].bases:
            yield from self._line(base, (*through, name))
        yield name


def _kept(spec: Any) -> Any:
    """Copy dicts and lists, which their owner may change, all the way down."""
    if isinstance(spec, Mapping):
        return {key: _kept(value) for key, value in spec.items()}
    return list(map(_kept, spec)) if isinstance(spec, list) else spec


def _joined(what: str, specs: list[Any]) -> Any:
    if all(isinstance(spec, Mapping) for spec in specs):
        return merge(*specs)
    if len(specs) == 1:
        return specs[0]
    if all(map(callable, specs)):
        return compose_left(*specs)
    kinds = ", ".join(type(spec).__name__ for spec in specs)
    raise TypeError(f"the {what} and its bases must be all dicts or all functions, to be joined; they are {kinds}")
