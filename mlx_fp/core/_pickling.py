"""Pickle records for other processes of the same program, with the nested functions that the records hold.

Python pickles a function by its name, and a nested function has no name that Python can look up. This module pickles a
nested function of this library or of MLX as the position of its code and the values of its closure. For example, the
`run` of a layer is the position "code 0 of `fn.<locals>.run`" and the function that it closes over. Functions of a user
are pickled by name. A function of a user without such a name is an error, which names the part of the record. The
library writes no files in this format.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from types import CellType, FunctionType, MappingProxyType, MethodType
from typing import Any, NoReturn, Self

from ._frozen import FrozenDict
from ._rebuilding import (
    apply,
    complete_function,
    complete_object,
    find_codes,
    find_qualified,
    function_at,
    module_constant,
    new_instance,
)

__all__ = ["Picklable"]

_OUR_PACKAGES = {"mlx_fp", "mlx"}
"""Packages whose functions are pickled by the position of their code, and whose constants keep their identity."""

_FUNCTION_ATTRIBUTES = ("__defaults__", "__kwdefaults__", "__name__", "__qualname__", "__doc__")
"""The attributes of a function beside its code and its `__dict__`."""

_PENDING = object()
"""Stands for a value while the value is being encoded."""

_Encoded = dict[int, tuple[object, object]]
"""Encoded values by the id of the original: `(encoded, original)`. The original stays alive, so its id stays unique."""


class Picklable:
    """Let pickle take a frozen record together with the functions in it.

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

    def __reduce_ex__(self, protocol: object) -> Any:
        call = _encode(self, type(self).__name__, {})
        assert isinstance(call, _Call)
        return call.__reduce__()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(**{name: copy.deepcopy(value, memo) for name, value in _field_values(self).items()})


class _Call:
    """Stand for a value as a function call: pickle writes the call, and unpickling makes the call.

    Where `complete` is set, unpickling then calls `complete(result, state)`. So the state may refer to the result.
    """

    __slots__ = ("_args", "_fn", "complete", "state")

    def __init__(self, fn: Callable[..., object], *args: object) -> None:
        self._fn, self._args = fn, args
        self.complete: Callable[[Any, Any], None] | None = None
        self.state: object = None

    def __reduce__(self) -> tuple[Any, ...]:
        call = (self._fn, self._args)
        return call if self.complete is None else (*call, self.state, None, None, self.complete)


def _encode(value: object, path: str, cache: _Encoded) -> object:
    """Return a value in which a `_Call` replaces each part that pickle refuses; `cache` holds encoded values."""
    encoded, _ = cache.get(id(value), (None, None))
    if encoded is _PENDING:
        raise _pickling_error(f"{path} holds itself, and cannot be pickled")
    if id(value) not in cache:
        cache[id(value)] = (_PENDING, value)
        encoded = _encode_new(value, path, cache)
        cache[id(value)] = (encoded, value)
    return encoded


def _encode_new(value: Any, path: str, cache: _Encoded) -> object:
    kind = type(value)
    if (name := _constant_name(kind.__module__, value)) is not None:
        return _Call(module_constant, kind.__module__, name)
    if kind is FunctionType:
        return _encode_function(value, path, cache)
    if kind is MethodType:
        return _Call(getattr, _encode(value.__self__, path, cache), value.__func__.__name__)
    if isinstance(value, type):
        return value if _has_name(value) else _refuse(value, path, f"in {value.__module__}")
    if isinstance(value, Picklable) or (is_dataclass(kind) and _package(kind.__module__) in _OUR_PACKAGES):
        values = {name: _encode(item, f"{path}.{name}", cache) for name, item in _field_values(value).items()}
        return _Call(apply, kind, (), values)
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{path}[{i}]", cache) for i, item in enumerate(value)]
        return items if kind is list else tuple(items) if kind is tuple else _Call(apply, kind, items, {})
    if kind in (dict, FrozenDict, MappingProxyType):
        entries = {name: _encode(item, f"{path}.{name}", cache) for name, item in value.items()}
        return entries if kind is dict else _Call(kind, entries)
    return _encode_foreign(value, path, cache)


def _encode_foreign(value: Any, path: str, cache: _Encoded) -> object:
    """Encode objects of functools, toolz and MLX. Return any other value unchanged, for pickle itself."""
    kind = type(value)
    if kind is partial:
        args = [_encode(item, path, cache) for item in (value.func, *value.args)]
        return _Call(apply, partial, args, _encode(dict(value.keywords), path, cache))
    if (kind.__module__, kind.__name__) == ("toolz.functoolz", "Compose"):
        functions = [_encode(fn, path, cache) for fn in (value.first, *value.funcs)]
        return _Call(apply, sys.modules[kind.__module__].compose_left, functions, {})
    module_class = getattr(sys.modules.get("mlx.nn"), "Module", ())
    if isinstance(value, module_class) or kind.__module__.startswith("mlx.optimizers"):
        return _encode_object(value, path, cache)
    if callable(value) and (name := _constant_name(getattr(value, "__module__", None), value)) is not None:
        return _Call(module_constant, value.__module__, name)
    return value


def _encode_function(fn: FunctionType, path: str, cache: _Encoded) -> object:
    """Return a function that pickle finds by its name, or else a call that builds a function from the same code."""
    if _has_name(fn):
        return fn
    module, code = fn.__globals__["__name__"], fn.__code__
    if (name := _constant_name(module, fn)) is not None:
        return _Call(module_constant, module, name)
    codes = find_codes(module, code.co_qualname) if _package(module) in _OUR_PACKAGES else ()
    number = next((i for i, candidate in enumerate(codes) if candidate is code), None)
    if number is None:
        _refuse(fn, path, f"{code.co_filename}, line {code.co_firstlineno}")
    call = _Call(function_at, module, code.co_qualname, number)
    cache[id(fn)] = (call, fn)  # set now, because the closure may hold the function itself
    cells = zip(code.co_freevars, fn.__closure__ or (), strict=True)
    attributes = {name: getattr(fn, name) for name in _FUNCTION_ATTRIBUTES} | vars(fn)
    call.state = (
        [_encode_cell(cell, f"{path}.{name}", cache) for name, cell in cells],
        {name: _encode(value, path, cache) for name, value in attributes.items()},
    )
    call.complete = complete_function
    return call


def _encode_cell(cell: CellType, path: str, cache: _Encoded) -> tuple[object, ...]:
    """Return the encoded value of a closure's cell in a tuple, or an empty tuple for an empty cell."""
    try:
        value = cell.cell_contents
    except ValueError:  # the cell is empty
        return ()
    return (_encode(value, path, cache),)


def _encode_object(value: object, path: str, cache: _Encoded) -> _Call:
    """Return a call that builds an object of MLX from its attributes and, for a module, from its items as a dict."""
    call = _Call(new_instance, _encode(type(value), path, cache))
    cache[id(value)] = (call, value)  # set now, because attributes may hold methods of the object
    parts = (vars(value), dict.copy(value) if isinstance(value, dict) else {})
    call.state = tuple({name: _encode(item, f"{path}.{name}", cache) for name, item in part.items()} for part in parts)
    call.complete = complete_object
    return call


def _refuse(value: type | FunctionType, path: str, where: str) -> NoReturn:
    raise _pickling_error(
        f"{path} is {value.__qualname__}, which pickle does not find by its name: {where}; define it at the top level "
        "of a module, a function by `def`"
    )


def _pickling_error(message: str) -> Exception:
    from pickle import PicklingError  # a late import: every layer can be pickled, and most never are

    return PicklingError(message)


def _field_values(record: Any) -> dict[str, Any]:
    """Return the fields of a record that its constructor takes, without fields that have their default."""
    values = {field.name: (getattr(record, field.name), field.default) for field in fields(record) if field.init}
    return {name: value for name, (value, default) in values.items() if value is not default}


def _constant_name(module: str | None, value: object) -> str | None:
    """Return the name of this very object in a module of this library or of MLX, or None."""
    if _package(module) not in _OUR_PACKAGES:
        return None
    return next((name for name, item in vars(sys.modules[module or ""]).items() if item is value), None)


def _has_name(value: type | FunctionType) -> bool:
    """Tell whether pickle finds a function or class by its name."""
    return find_qualified(value.__module__, value.__qualname__) is value


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]
