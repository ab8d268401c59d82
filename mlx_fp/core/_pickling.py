"""Records through pickle, to other processes of one program: functions made within functions of the library go along.

Python pickles a function by its name, which one that was made within another has not. Such a function of this library
or of MLX goes as the place of its code and the values that it holds. Functions of a user go by their names, and one
without is an error that says which part of the record it is. No file of the library is made so.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from pickle import PicklingError
from types import CellType, FunctionType, MappingProxyType, MethodType
from typing import Any, NoReturn, Self

from ._frozen import FrozenDict
from ._rebuilding import called, codes, complete_function, complete_object, constant, found, function_at, instance

__all__ = ["Picklable"]

_OURS = {"mlx_fp", "mlx"}
"""Packages whose functions go by the place of their code, and whose constants stay the ones that they are."""

_OWN = ("__defaults__", "__kwdefaults__", "__name__", "__qualname__", "__doc__")
"""The attributes of a function that it has of its own, beside its code."""

_PENDING = object()
"""In the place of a value that is being encoded."""


class Picklable:
    """A frozen record that pickle takes, with the functions that it holds.

    >>> import pickle
    >>> from mlx_fp import nn
    >>> layer = nn.sequential(nn.linear(2, 3), nn.relu)
    >>> pickle.loads(pickle.dumps(layer))
    sequential
      layers.0: Linear(input_dims=2, output_dims=3)
      layers.1: ReLU
    >>> pickle.dumps(nn.fn(lambda x: x + 1))
    Traceback (most recent call last):
    _pickle.PicklingError: Layer.apply.run.function is <lambda>, which pickle does not find by its name: ...
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _encoded(self, type(self).__name__, {}).__reduce__()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(**{name: copy.deepcopy(value, memo) for name, value in _values(self).items()})


class _Call:
    """A call in the place of a value: pickle writes it, and reading it gives the result.

    Where there is a `state`, `complete(result, state)` follows, so that the state may hold the result.
    """

    __slots__ = ("_args", "_fn", "complete", "state")

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._fn, self._args = fn, args
        self.complete: Callable[[Any, Any], None] | None = None
        self.state: Any = None

    def __reduce__(self) -> Any:
        call = (self._fn, self._args)
        return call if self.complete is None else (*call, self.state, None, None, self.complete)


def _encoded(value: Any, at: str, done: dict[int, Any]) -> Any:
    """Return a value with calls in the place of what pickle does not take; `done` has those that are encoded."""
    made, _ = done.get(id(value), (None, None))
    if made is _PENDING:
        raise PicklingError(f"{at} holds itself, and cannot be pickled")
    if id(value) not in done:
        done[id(value)] = (_PENDING, value)
        made = _as_calls(value, at, done)
        done[id(value)] = (made, value)  # the value lives on, and its id with it
    return made


def _as_calls(value: Any, at: str, done: dict[int, Any]) -> Any:
    kind = type(value)
    if (name := _constant_name(kind.__module__, value)) is not None:
        return _Call(constant, kind.__module__, name)
    if kind is FunctionType:
        return _function(value, at, done)
    if kind is MethodType:
        return _Call(getattr, _encoded(value.__self__, at, done), value.__func__.__name__)
    if isinstance(value, type):
        return value if _is_named(value) else _refuse(value, at, f"in {value.__module__}")
    if isinstance(value, Picklable) or (is_dataclass(kind) and _package(kind.__module__) in _OURS):
        return _Call(
            called, kind, (), {name: _encoded(one, f"{at}.{name}", done) for name, one in _values(value).items()}
        )
    if isinstance(value, (list, tuple)):
        items = [_encoded(one, f"{at}[{i}]", done) for i, one in enumerate(value)]
        return items if kind is list else tuple(items) if kind is tuple else _Call(called, kind, items, {})
    if kind in (dict, FrozenDict, MappingProxyType):
        named = {name: _encoded(one, f"{at}.{name}", done) for name, one in value.items()}
        return named if kind is dict else _Call(kind, named)
    return _others(value, at, done)


def _others(value: Any, at: str, done: dict[int, Any]) -> Any:
    """Encode what toolz and MLX make; anything else is left to pickle."""
    kind = type(value)
    if kind is partial:
        args = [_encoded(one, at, done) for one in (value.func, *value.args)]
        return _Call(called, partial, args, _encoded(dict(value.keywords), at, done))
    if (kind.__module__, kind.__name__) == ("toolz.functoolz", "Compose"):
        functions = [_encoded(one, at, done) for one in (value.first, *value.funcs)]
        return _Call(called, sys.modules[kind.__module__].compose_left, functions, {})
    module_class = getattr(sys.modules.get("mlx.nn"), "Module", ())
    if isinstance(value, module_class) or kind.__module__.startswith("mlx.optimizers"):
        return _object(value, at, done)
    if callable(value) and (name := _constant_name(getattr(value, "__module__", None), value)) is not None:
        return _Call(constant, value.__module__, name)
    return value


def _function(fn: FunctionType, at: str, done: dict[int, Any]) -> Any:
    """Return a function that pickle finds by its name, or else a call that makes one of the same code."""
    if _is_named(fn):
        return fn
    module, code = fn.__globals__["__name__"], fn.__code__
    if (name := _constant_name(module, fn)) is not None:
        return _Call(constant, module, name)
    places = codes(module, code.co_qualname) if _package(module) in _OURS else ()
    number = next((i for i, one in enumerate(places) if one is code), None)
    if number is None:
        _refuse(fn, at, f"{code.co_filename}, line {code.co_firstlineno}")
    made = _Call(function_at, module, code.co_qualname, number)
    done[id(fn)] = (made, fn)  # the function may hold itself
    cells = zip(code.co_freevars, fn.__closure__ or (), strict=True)
    attributes = {name: getattr(fn, name) for name in _OWN} | vars(fn)
    made.state = (
        [_content(cell, f"{at}.{name}", done) for name, cell in cells],
        {name: _encoded(one, at, done) for name, one in attributes.items()},
    )
    made.complete = complete_function
    return made


def _content(cell: CellType, at: str, done: dict[int, Any]) -> tuple[Any, ...]:
    try:
        held = cell.cell_contents
    except ValueError:  # it is empty
        return ()
    return (_encoded(held, at, done),)


def _object(value: Any, at: str, done: dict[int, Any]) -> _Call:
    """Return a call that makes an object of MLX: its attributes, and what a module has as a dict."""
    made = _Call(instance, _encoded(type(value), at, done))
    done[id(value)] = (made, value)  # its methods may be among its attributes
    parts = (vars(value), dict.copy(value) if isinstance(value, dict) else {})
    made.state = tuple({name: _encoded(one, f"{at}.{name}", done) for name, one in part.items()} for part in parts)
    made.complete = complete_object
    return made


def _refuse(value: Any, at: str, where: str) -> NoReturn:
    raise PicklingError(
        f"{at} is {value.__qualname__}, which pickle does not find by its name: {where}; define it at the top level of "
        "a module, a function by `def`"
    )


def _values(record: Any) -> dict[str, Any]:
    """Return the fields that a record was made of, but for those that are their defaults."""
    each = {field.name: (getattr(record, field.name), field.default) for field in fields(record) if field.init}
    return {name: value for name, (value, default) in each.items() if value is not default}


def _constant_name(module: str | None, value: Any) -> str | None:
    """Return the name under which a module of this library or of MLX has this very value, None where it has none."""
    if _package(module) not in _OURS:
        return None
    return next((name for name, one in vars(sys.modules[module or ""]).items() if one is value), None)


def _is_named(value: Any) -> bool:
    """Tell whether pickle finds a function or class by its name."""
    return found(value.__module__, value.__qualname__) is value


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]
