"""Find the Python numbers outside a function. A trace keeps their values, so a later change has no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import TypeGuard

__all__ = ["outer_numbers"]

_CALL_DEPTH = 3
"""The depth of calls to follow."""


def outer_numbers(fn: object) -> dict[str, float]:
    """Return the Python numbers that a function reads from its closure, its module and the functions that it calls.

    Numbers in dicts and in attributes of plain objects count, one level deep. The key of each number is its place. For
    example, `options['beta']`.

    >>> options, scale = {"beta": 0.1}, 2
    >>> def loss(x):
    ...     return scale * x * options["beta"]
    >>> outer_numbers(loss)
    {'scale': 2, "options['beta']": 0.1}
    """
    return dict(_find_numbers(fn, _CALL_DEPTH, set()))


def _find_numbers(fn: object, depth: int, seen: set[int]) -> Iterator[tuple[str, float]]:
    if id(fn) in seen or not depth:
        return
    seen.add(id(fn))
    if isinstance(fn, partial):
        yield from _find_numbers(fn.func, depth, seen)
    elif isinstance(fn, MethodType):
        yield from _numbers_in(f"{type(fn.__self__).__name__}", fn.__self__, depth, seen)
        yield from _find_numbers(fn.__func__, depth, seen)
    elif isinstance(fn, FunctionType):
        for name, value in _outer_values(fn):
            yield from _numbers_in(name, value, depth, seen)


def _outer_values(fn: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield the names and values that a function reads from its module, then from its closure."""
    for name in fn.__code__.co_names:
        if name in fn.__globals__:
            yield name, fn.__globals__[name]
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the cell is empty: the program assigns it later
            continue


def _numbers_in(name: str, value: object, depth: int, seen: set[int]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of one outer value, with their places."""
    if _is_python_number(value):
        yield name, value
    elif isinstance(value, (FunctionType, MethodType, partial)):
        yield from _find_numbers(value, depth - 1, seen)
    elif isinstance(value, Mapping):
        yield from ((f"{name}[{key!r}]", item) for key, item in value.items() if _is_python_number(item))
    else:
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict) and not isinstance(value, type) and not hasattr(value, "__spec__"):
            yield from ((f"{name}.{key}", item) for key, item in attributes.items() if _is_python_number(item))


def _is_python_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (bool, int, float))
