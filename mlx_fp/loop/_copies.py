"""What a hook receives is its own: what it does to that in place changes nothing in the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["copy_arrays", "copy_on_read"]

Record = TypeVar("Record", bound=type)


def copy_on_read(copied: Callable[[Any], Any], *fields: str) -> Callable[[Record], Record]:
    """Decorate a record without slots: each reading of these fields gives what `copied` makes of them.

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
        record.__init__ = _quick_init(record)  # type: ignore[misc]
        return record

    return decorated


def _quick_init(record: Any) -> Callable[..., None]:
    """Return an `__init__` that takes all fields by position at once: a run makes an event at each step."""
    plain = record.__init__
    names = [field.name for field in dataclasses.fields(record)]

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs or len(args) != len(names):
            plain(self, *args, **kwargs)
        else:
            self.__dict__.update(zip(names, args, strict=True))

    return init


def copy_arrays(tree: Any) -> Any:
    """Return a tree with array objects of its own; those of numpy share the memory, and cannot be written to.

    >>> one = {"w": mx.array(1)}
    >>> other = copy_arrays(one)
    >>> other["w"] += 1
    >>> one["w"].item()
    1
    """
    from ..core._mlx import utils
    from ..tree._paths import fresh

    return utils.tree_map(lambda leaf: _unwritable(leaf) if hasattr(leaf, "setflags") else leaf, fresh(tree))


class _CopiedField:
    """A field that keeps its value in the record's dict, and gives a copy."""

    def __init__(self, name: str, copied: Callable[[Any], Any]) -> None:
        self.name, self.copied = name, copied

    def __get__(self, record: Any, owner: type) -> Any:
        return self if record is None else self.copied(record.__dict__[self.name])

    def __set__(self, record: Any, value: Any) -> None:
        record.__dict__[self.name] = value


def _unwritable(array: Any) -> Any:
    view = array.view()
    view.setflags(write=False)
    return view
