"""Read-only mappings for records."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

__all__ = ["FrozenDict", "freeze_field"]

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """Hold entries as a dict that refuses every change. Dicts among its values are frozen too.

    `dict(frozen)` is a copy that can be changed.

    >>> settings = FrozenDict({"rate": 0.1, "inner": {"count": 2}})
    >>> settings["inner"]["count"] = 3
    Traceback (most recent call last):
    TypeError: a record's mapping is read-only; change a copy: dict(…)
    >>> settings | {"rate": 0.2}
    {'rate': 0.2, 'inner': {'count': 2}}
    """

    def __init__(self, *args: Any, **entries: V) -> None:
        plain = dict(*args, **entries)
        super().__init__({key: FrozenDict(value) if isinstance(value, dict) else value for key, value in plain.items()})

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        """Raise TypeError, because a record is read-only."""
        raise TypeError("a record's mapping is read-only; change a copy: dict(…)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[K, V]]]:
        return type(self), (dict(self),)


def freeze_field(record: object, *names: str) -> None:
    """Freeze the named fields of a frozen record that hold a dict. Call it from `__post_init__`.

    A field with any other value, for example None, stays as it is.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Record:
    ...     options: dict
    ...     def __post_init__(self):
    ...         freeze_field(self, "options")
    >>> Record({"a": 1}).options.clear()
    Traceback (most recent call last):
    TypeError: a record's mapping is read-only; change a copy: dict(…)
    """
    for name in names:
        value = getattr(record, name)
        if isinstance(value, dict) and not isinstance(value, FrozenDict):
            object.__setattr__(record, name, FrozenDict(value))
