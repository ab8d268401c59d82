"""What reading a pickled record calls, and the places of code by which a function within a function is found again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import unwrap
from types import CellType, CodeType, FunctionType
from typing import Any

__all__ = ["called", "codes", "complete_function", "complete_object", "constant", "found", "function_at", "instance"]


def called(fn: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Return what a function gives for arguments in a list and options in a dict.

    >>> called(dict, [[("a", 1)]], {"b": 2})
    {'a': 1, 'b': 2}
    """
    return fn(*args, **options)


def constant(module: str, name: str) -> Any:
    """Return what a module has under a name.

    >>> constant("mlx_fp.core._text", "table").__name__
    'table'
    """
    return getattr(import_module(module), name)


def instance(kind: Any) -> Any:
    """Return an object of a class, with nothing in it; see `complete_object`."""
    return kind.__new__(kind)


def complete_object(made: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give an object its attributes, and a module of MLX what it has as a dict."""
    attributes, items = state
    made.__dict__.update(attributes)
    for name, value in items.items():
        dict.__setitem__(made, name, value)


def function_at(module: str, qualname: str, number: int) -> FunctionType:
    """Make a function of the code at a place of a module; `complete_function` gives it the values that it holds.

    >>> function_at("mlx_fp.nn._lift", "fn.<locals>.run", 0).__name__
    'run'
    """
    space = vars(import_module(module))
    code = list(codes(module, qualname))[number]
    return FunctionType(code, space, closure=tuple(CellType() for _ in code.co_freevars))


def complete_function(made: FunctionType, state: tuple[list[tuple[Any, ...]], dict[str, Any]]) -> None:
    """Give a function the values of its cells, each in a tuple that is empty where the cell is, and its attributes."""
    cells, attributes = state
    for cell, content in zip(made.__closure__ or (), cells, strict=True):
        if content:
            (cell.cell_contents,) = content
    for name, value in attributes.items():
        setattr(made, name, value)


def found(module: str | None, qualname: str) -> Any:
    """Return the object of a dotted name in a module that is loaded, None where there is none.

    >>> found("mlx_fp.core._frozen", "FrozenDict.clear").__name__
    '_refuse'
    """
    here: Any = sys.modules.get(module or "")
    for name in qualname.split("."):
        here = vars(here).get(name) if hasattr(here, "__dict__") else None
    return here


def codes(module: str, qualname: str) -> Iterator[CodeType]:
    """Yield the code of each function of such a qualified name within the functions of a module.

    >>> [code.co_name for code in codes("mlx_fp.core._rebuilding", "codes")]
    ['codes']
    """
    outer = found(module, qualname.partition(".<locals>")[0])
    outer = getattr(outer, "fget", None) or getattr(outer, "__func__", None) or outer
    code = getattr(unwrap(outer) if callable(outer) else outer, "__code__", None)
    return iter(()) if code is None else _inside(code, qualname)


def _inside(code: CodeType, qualname: str) -> Iterator[CodeType]:
    if code.co_qualname == qualname:
        yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _inside(inner, qualname)
