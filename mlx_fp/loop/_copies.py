"""Copies for hooks: an in-place change of a value that a hook receives changes nothing in the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from ..core._types import Tree

__all__ = ["copy_arrays", "copy_on_read"]

Record = TypeVar("Record", bound=type)


def copy_on_read(copied: Callable[[Any], object], *fields: str) -> Callable[[Record], Record]:
    """Decorate a record without slots: each reading of these fields returns `copied(value)`.

    >>> from dataclasses import dataclass
    >>> @copy_on_read(list, "names")
    ... @dataclass(frozen=True)
    ... class Event:
    ...     names: list
    >>> event = Event(["a"])
    >>> event.names.append("b")
    >>> event.names
    ['a']
    """

    def decorated(record: Record) -> Record:
        for name in fields:
            setattr(record, name, _CopiedField(name, copied))
        record.__init__ = _quick_init(record)  # type: ignore[misc]  # the method of a class, replaced as it is defined
        return record

    return decorated


def _quick_init(record: type) -> Callable[..., None]:
    """Return an `__init__` that sets all positional fields at once, because a run makes an event at each step."""
    plain: Callable[..., None] = vars(record)["__init__"]
    names = [field.name for field in dataclasses.fields(record)]

    def init(self: object, *args: object, **kwargs: object) -> None:
        if kwargs or len(args) != len(names):
            plain(self, *args, **kwargs)
        else:
            self.__dict__.update(zip(names, args, strict=True))

    return init


def copy_arrays(tree: Tree) -> Tree:
    """Return a tree with new array objects. Arrays of numpy share the memory and are read-only.

    >>> first = {"w": mx.array(1)}
    >>> second = copy_arrays(first)
    >>> second["w"] += 1
    >>> first["w"].item()
    1
    """
    from ..core._mlx import utils
    from ..tree._paths import copy_arrays

    return utils.tree_map(lambda leaf: _read_only(leaf) if hasattr(leaf, "setflags") else leaf, copy_arrays(tree))


class _CopiedField:
    """A field that keeps its value in the record's dict and returns a copy."""

    def __init__(self, name: str, copied: Callable[[Any], object]) -> None:
        self.name, self.copied = name, copied

    def __get__(self, record: object, owner: type) -> object:
        return self if record is None else self.copied(record.__dict__[self.name])

    def __set__(self, record: object, value: object) -> None:
        record.__dict__[self.name] = value


class _NumpyArray(Protocol):
    """The methods of a numpy array that a read-only view needs; numpy itself is not imported."""

    def view(self) -> _NumpyArray:
        """Return a view of the same memory."""

    def setflags(self, *, write: bool) -> None:
        """Set whether the array may be written to."""


def _read_only(array: object) -> _NumpyArray:
    view = cast(_NumpyArray, array).view()
    view.setflags(write=False)
    return view
