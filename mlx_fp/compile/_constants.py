"""The numbers that a function reads from outside: a trace keeps them, so that a change to one has no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

__all__ = ["outer_numbers"]

_DEPTH = 3
"""How many calls deep functions are followed."""


def outer_numbers(fn: Any) -> dict[str, Any]:
    """Return the Python numbers that a function reads from its closure, its module and the functions that it calls.

    Numbers in dicts and in attributes of plain objects count, one level deep. Names tell where each is.

    >>> options, scale = {"beta": 0.1}, 2
    >>> def loss(x):
    ...     return scale * x * options["beta"]
    >>> outer_numbers(loss)
    {'scale': 2, "options['beta']": 0.1}
    """
    return dict(_numbers(fn, _DEPTH, set()))


def _numbers(fn: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(fn) in seen or not depth:
        return
    seen.add(id(fn))
    if isinstance(fn, partial):
        yield from _numbers(fn.func, depth, seen)
    elif isinstance(fn, MethodType):
        yield from _of(f"{type(fn.__self__).__name__}", fn.__self__, depth, seen)
        yield from _numbers(fn.__func__, depth, seen)
    elif isinstance(fn, FunctionType):
        for name, value in _outer(fn):
            yield from _of(name, value, depth, seen)


def _outer(fn: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the outer values that a function names: of its module, then of its closure."""
    for name in fn.__code__.co_names:
        if name in fn.__globals__:
            yield name, fn.__globals__[name]
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it is assigned later
            continue


def _of(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if _is_number(value):
        yield name, value
    elif isinstance(value, (FunctionType, MethodType, partial)):
        yield from _numbers(value, depth - 1, seen)
    elif isinstance(value, Mapping):
        yield from ((f"{name}[{key!r}]", one) for key, one in value.items() if _is_number(one))
    else:
        plain = getattr(value, "__dict__", None)
        if isinstance(plain, dict) and not isinstance(value, type) and not hasattr(value, "__spec__"):
            yield from ((f"{name}.{key}", one) for key, one in plain.items() if _is_number(one))


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))
