"""Functions that unpickling calls, and the search for the code of a nested function by its qualified name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import unwrap
from types import CellType, CodeType, FunctionType
from typing import TypeVar, cast

__all__ = [
    "apply",
    "complete_function",
    "complete_object",
    "find_codes",
    "find_qualified",
    "function_at",
    "module_constant",
    "new_instance",
]

T = TypeVar("T")


def apply(fn: Callable[..., T], args: Sequence[object], options: Mapping[str, object]) -> T:
    """Call a function with arguments in a list and options in a dict.

    >>> apply(dict, [[("a", 1)]], {"b": 2})
    {'a': 1, 'b': 2}
    """
    return fn(*args, **options)


def module_constant(module: str, name: str) -> object:
    """Return the value of a name in a module, which is imported first.

    >>> module_constant("mlx_fp.core._text", "table").__name__
    'table'
    """
    return getattr(import_module(module), name)


def new_instance(kind: type[T]) -> T:
    """Return an empty object of a class. `complete_object` fills it."""
    return kind.__new__(kind)


def complete_object(instance: object, state: tuple[dict[str, object], dict[str, object]]) -> None:
    """Set the attributes of an object; `state` is `(attributes, items)`. A module of MLX is a dict, and has items."""
    attributes, items = state
    instance.__dict__.update(attributes)
    for name, value in items.items():
        dict.__setitem__(cast("dict[str, object]", instance), name, value)


def function_at(module: str, qualname: str, number: int) -> FunctionType:
    """Build a function from the code with a qualified name in a module. `complete_function` fills its closure.

    Several functions may have the same qualified name; `number` is the index among them.

    >>> function_at("mlx_fp.nn._lift", "fn.<locals>.run", 0).__name__
    'run'
    """
    namespace = vars(import_module(module))
    code = list(find_codes(module, qualname))[number]
    return FunctionType(code, namespace, closure=tuple(CellType() for _ in code.co_freevars))


def complete_function(fn: FunctionType, state: tuple[list[tuple[object, ...]], dict[str, object]]) -> None:
    """Set the closure and the attributes of a function; `state` is `(cells, attributes)`.

    Each cell is a tuple with its value. An empty tuple stands for an empty cell.
    """
    cells, attributes = state
    for cell, content in zip(fn.__closure__ or (), cells, strict=True):
        if content:
            (cell.cell_contents,) = content
    for name, value in attributes.items():
        setattr(fn, name, value)


def find_qualified(module: str | None, qualname: str) -> object:
    """Return the object with a dotted name in an imported module, or None.

    >>> find_qualified("mlx_fp.core._frozen", "FrozenDict.clear").__name__
    '_refuse'
    """
    value: object = sys.modules.get(module or "")
    for name in qualname.split("."):
        value = vars(value).get(name) if hasattr(value, "__dict__") else None
    return value


def find_codes(module: str, qualname: str) -> Iterator[CodeType]:
    """Yield the code of each function with this qualified name, nested functions included.

    >>> [code.co_name for code in find_codes("mlx_fp.core._rebuilding", "find_codes")]
    ['find_codes']
    """
    outer = find_qualified(module, qualname.partition(".<locals>")[0])
    outer = getattr(outer, "fget", None) or getattr(outer, "__func__", None) or outer
    code = getattr(unwrap(outer) if callable(outer) else outer, "__code__", None)
    return iter(()) if code is None else _nested(code, qualname)


def _nested(code: CodeType, qualname: str) -> Iterator[CodeType]:
    """Yield the codes with this qualified name in a code and in its nested functions."""
    if code.co_qualname == qualname:
        yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _nested(inner, qualname)
