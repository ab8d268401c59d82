"""A module as structure and arrays: copy the structure, take the arrays out, put others in."""

from __future__ import annotations

import gc
from collections.abc import Container, Iterator, Mapping
from functools import reduce
from operator import getitem
from types import CellType, FunctionType, MappingProxyType, MethodType
from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._types import Params
from ..tree._paths import copy_arrays, flat

__all__ = [
    "NO_SUBSTITUTES",
    "Module",
    "fill",
    "hidden",
    "parameters",
    "read",
    "refuse_functions_of_modules",
    "refuse_tied_arrays",
    "structure",
]

Module = mlx_nn.Module

NO_SUBSTITUTES: Mapping[type, type] = MappingProxyType({})
"""No class is replaced by another."""


def parameters(module: mlx_nn.Module) -> Params:
    """Return the parameters and buffers of a module as a plain tree; each array is a new object.

    A module that stands in several places has its parameters in the first place only.
    """
    return copy_arrays(_own_arrays(module))


def _own_arrays(module: mlx_nn.Module) -> Params:
    tree: Params = module.parameters()
    for *above, last in _repeated(module, set()):
        reduce(getitem, above, tree)[last] = {}
    return tree


def refuse_tied_arrays(module: mlx_nn.Module) -> None:
    """Raise ValueError for an array that is two parameters: in MLX too the first update takes them apart."""
    first: dict[int, str] = {}
    for path, leaf in flat(_own_arrays(module)).items():
        if (other := first.setdefault(id(leaf), path)) != path:
            raise ValueError(
                f"{type(module).__name__}: {other} and {path} are one array, and the first update would part them. "
                "To tie them, let the module itself stand in both places, as in `self.head = self.embed` with "
                "`self.head.as_linear(x)`, or compute with the one array; for two arrays, assign a copy, `mx.array(w)`"
            )


def _repeated(node: Any, seen: set[int]) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each place of a module after its first place."""
    if isinstance(node, Module):
        if id(node) in seen:
            yield ()
            return
        seen.add(id(node))
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        if not (isinstance(node, Module) and str(key).startswith("_")):
            yield from ((key, *below) for below in _repeated(child, seen))


def structure(module: Any, classes: Mapping[type, type] = NO_SUBSTITUTES) -> Any:
    """Copy a module with all modules and arrays in it; `classes` maps classes to those that replace them in the copy.

    A module that stands in several places has one copy. Bound methods that the modules keep as attributes are bound to
    the copies.
    """
    copies: dict[int, Any] = {}
    copy = _copied(module, copies, classes)
    for node in copies.values():
        _bind_methods(vars(node), copies)
        _bind_methods(node, copies)
    return copy


def _copied(node: Any, copies: dict[int, Any], classes: Mapping[type, type]) -> Any:
    """Copy modules, dicts, lists, tuples and arrays; `copies` has the copy of each module by the id of the original."""
    if isinstance(node, mx.array):
        return node.astype(node.dtype)  # a new object, for a module may use `+=`
    if isinstance(node, Module):
        return copies[id(node)] if id(node) in copies else _copied_module(node, copies, classes)
    if isinstance(node, dict):
        return {key: _copied(child, copies, classes) for key, child in node.items()}
    if not isinstance(node, (list, tuple)):
        return node
    items = [_copied(child, copies, classes) for child in node]
    if isinstance(node, list):
        return items
    return type(node)(*items) if hasattr(node, "_fields") else type(node)(items)


def _copied_module(module: Any, copies: dict[int, Any], classes: Mapping[type, type]) -> Any:
    kind: Any = classes.get(type(module), type(module))
    copy = copies[id(module)] = kind.__new__(kind)
    copy.__dict__.update(module.__dict__)
    copy._no_grad = set(module._no_grad)
    for key, child in module.items():
        dict.__setitem__(copy, key, _copied(child, copies, classes))
    return copy


def _bind_methods(attributes: dict[str, Any], copies: dict[int, Any]) -> None:
    for name, value in attributes.items():
        if _is_method_of(value, copies):
            dict.__setitem__(attributes, name, MethodType(value.__func__, copies[id(value.__self__)]))


def _is_method_of(value: Any, modules: Container[int]) -> bool:
    return type(value) is MethodType and id(value.__self__) in modules  # `mx.compile(method)` has another type


def refuse_functions_of_modules(module: mlx_nn.Module) -> None:
    """Raise TypeError for an attribute with a function that holds one of the modules: `structure` copies no functions.

    A bound method of one of the modules passes if it is itself the attribute, for `structure` binds it to the copy.
    """
    seen: set[int] = set()
    modules = {id(value): value for value in _contents(module, seen) if issubclass(type(value), Module)}
    for node in modules.values():
        for name, value in (*vars(node).items(), *dict.items(node)):
            functions = () if _is_method_of(value, modules) else filter(callable, _contents(value, seen))
            if any(_reaches(function, modules) for function in functions):
                raise TypeError(
                    f"{type(node).__name__}.{name} {'is' if callable(value) else 'contains'} a function that holds a "
                    "module of this one. It would go on computing with the arrays that the module has now. Make it in "
                    "the method that calls it, or keep the module itself as an attribute."
                )


def _reaches(function: Any, modules: Container[int]) -> bool:
    """Tell whether a function holds one of the modules, itself or in the functions and containers that it holds."""
    waiting, seen = [function], set()
    while waiting:
        value = waiting.pop()
        if id(value) in modules:
            return True
        if id(value) not in seen and (callable(value) or isinstance(value, (dict, list, tuple, CellType))):
            seen.add(id(value))
            waiting += _referents(value)
    return False


def _referents(value: Any) -> list[Any]:
    """List the objects that a value refers to, but not the attributes of a class or the globals of a function."""
    if isinstance(value, type):
        return []
    if type(value) is FunctionType:
        return [value.__closure__, value.__defaults__, value.__kwdefaults__]
    return gc.get_referents(value)


def _contents(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield a value and all values in it, if it is a module, dict, list or tuple; leave out the modules in `seen`."""
    kind = type(value)  # `isinstance` takes `mx.compile(module)` for a module
    if issubclass(kind, Module):
        if id(value) in seen:
            return
        seen.add(id(value))
    yield value
    if issubclass(kind, (dict, list, tuple)):
        for child in dict.values(value) if issubclass(kind, dict) else value:
            yield from _contents(child, seen)


def fill(node: Any, params: Params) -> None:
    """Put the arrays of `params` into a structural copy; each array is a new object, for a module may use `+=`."""
    for key, value in params.items() if isinstance(params, dict) else enumerate(params):
        if isinstance(node, dict) and key not in node:
            raise KeyError(f"{key!r} has no place in {type(node).__name__}: restore_like makes a tree of named weights")
        if isinstance(value, (dict, list, tuple)):
            fill(node[key], value)
        elif isinstance(node, dict):
            dict.__setitem__(node, key, value.astype(value.dtype))
        else:
            node[key] = value.astype(value.dtype)


def read(node: Any, params: Params) -> Params:
    """Return the arrays of a module at the paths of `params`.

    Where the shapes differ, the module has changed the array for its mode only, and the array of `params` is returned.
    """
    if isinstance(params, dict):
        return {key: read(node.get(key, value), value) for key, value in params.items()}
    if isinstance(params, (list, tuple)):
        return [read(node[i], value) for i, value in enumerate(params)]
    return node if node.shape == params.shape else params


def hidden(module: mlx_nn.Module) -> list[Any]:
    """List the arrays that a module holds beside its parameters; they are constants of the layer."""
    own = {id(leaf) for leaf in flat(module.parameters()).values()}
    return [value for value in _contents(module, set()) if isinstance(value, mx.array) and id(value) not in own]
