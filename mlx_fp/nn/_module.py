"""A module as structure and arrays: clone the structure, get the arrays, set other arrays."""

from __future__ import annotations

import gc
from collections.abc import Container, Iterator, Mapping
from functools import reduce
from operator import getitem
from types import CellType, FunctionType, MappingProxyType, MethodType
from typing import Any, TypeAlias, TypeVar

from ..core._mlx import mlx_nn, mx
from ..core._types import Array, Params
from ..tree._paths import copy_arrays, flat

__all__ = [
    "NO_SUBSTITUTES",
    "Module",
    "children",
    "clone",
    "constants",
    "get_arrays",
    "parameters",
    "refuse_functions_of_modules",
    "refuse_tied_arrays",
    "set_arrays",
]

Module = mlx_nn.Module

Node: TypeAlias = Any
"""A module, or a value inside one: a dict, a list, a tuple, an array, or any other object."""

M = TypeVar("M", bound="mlx_nn.Module")

NO_SUBSTITUTES: Mapping[type, type] = MappingProxyType({})
"""No class is replaced by another."""

NO_REPLACEMENTS: Mapping[int, mlx_nn.Module] = MappingProxyType({})
"""No module is replaced by another."""


def parameters(module: mlx_nn.Module) -> Params:
    """Return the parameters and buffers of a module as a plain tree; each array is a new object.

    The parameters of a shared module are only under its first path.
    """
    return copy_arrays(_own_arrays(module))


def _own_arrays(module: mlx_nn.Module) -> Params:
    tree: Params = module.parameters()
    for *above, last in _repeated(module, set()):
        reduce(getitem, above, tree)[last] = {}
    return tree


def refuse_tied_arrays(module: mlx_nn.Module) -> None:
    """Raise ValueError for one array under two paths: in MLX, too, the first update makes two arrays of it."""
    first_paths: dict[int, str] = {}
    for path, leaf in flat(_own_arrays(module)).items():
        if (first_path := first_paths.setdefault(id(leaf), path)) != path:
            raise ValueError(
                f"{type(module).__name__}: {first_path} and {path} are one array, and the first update would make two "
                "arrays of it. To tie them, keep the module itself in both places, as in `self.head = self.embed` with "
                "`self.head.as_linear(x)`, or compute with the one array; for two arrays, assign a copy, `mx.array(w)`"
            )


def _repeated(node: Node, seen: set[int]) -> Iterator[tuple[Any, ...]]:
    """Yield every path of a shared module except its first path."""
    if isinstance(node, Module):
        if id(node) in seen:
            yield ()
            return
        seen.add(id(node))
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        if not (isinstance(node, Module) and str(key).startswith("_")):
            yield from ((key, *below) for below in _repeated(child, seen))


def children(node: Node, path: str = "") -> Iterator[tuple[str, mlx_nn.Module]]:
    """Yield the modules directly in a module, also those in its dicts and lists, with their paths from `path` on."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        if isinstance(node, Module) and str(key).startswith("_"):
            continue
        below = f"{path}.{key}" if path else str(key)
        if isinstance(child, Module):
            yield below, child
        else:
            yield from children(child, below)


def clone(
    module: M,
    classes: Mapping[type, type] = NO_SUBSTITUTES,
    replacements: Mapping[int, mlx_nn.Module] = NO_REPLACEMENTS,
) -> M:
    """Copy a module with all modules and arrays in it.

    Sharing is preserved: a module under several paths has one copy. Bound methods that the modules keep as attributes
    are rebound to the copies.

    Args:
        module: The module; it does not change.
        classes: For each class to replace, the class of the copies.
        replacements: The modules that take the place of modules inside this one, by the id of the module there.
    """
    copies: dict[int, mlx_nn.Module] = dict(replacements)
    copy: M = _copied(module, copies, classes)
    for node in copies.values():
        _bind_methods(vars(node), copies)
        _bind_methods(node, copies)
    return copy


def _copied(node: Node, copies: dict[int, mlx_nn.Module], classes: Mapping[type, type]) -> Node:
    """Copy modules, dicts, lists, tuples and arrays; `copies` has the copy of each module by the id of the original."""
    if isinstance(node, mx.array):
        return node.astype(node.dtype)  # a new object, because a module may use `+=`
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


def _copied_module(
    module: mlx_nn.Module, copies: dict[int, mlx_nn.Module], classes: Mapping[type, type]
) -> mlx_nn.Module:
    kind: type[mlx_nn.Module] = classes.get(type(module), type(module))
    copy = kind.__new__(kind)
    copies[id(module)] = copy
    copy.__dict__.update(module.__dict__)
    copy._no_grad = set(module._no_grad)
    for key, child in module.items():
        dict.__setitem__(copy, key, _copied(child, copies, classes))
    return copy


def _bind_methods(attributes: dict[str, Node], copies: dict[int, mlx_nn.Module]) -> None:
    for name, value in attributes.items():
        if _is_method_of(value, copies):
            copy = copies[id(value.__self__)]
            is_replaced = not isinstance(copy, type(value.__self__))
            function = getattr(type(copy), value.__func__.__name__) if is_replaced else value.__func__
            dict.__setitem__(attributes, name, MethodType(function, copy))


def _is_method_of(value: Node, modules: Container[int]) -> bool:
    return type(value) is MethodType and id(value.__self__) in modules  # `mx.compile(method)` has another type


def refuse_functions_of_modules(module: mlx_nn.Module) -> None:
    """Raise TypeError for an attribute with a function that holds one of the modules: `clone` does not copy functions.

    A bound method of one of the modules is allowed if it is itself the attribute, because `clone` rebinds it to the
    copy. For example, `self.path = self.fast` is allowed, and `self.path = lambda x: self.fast(x)` is not.
    """
    seen: set[int] = set()
    modules = {id(value): value for value in _contents(module, seen) if issubclass(type(value), Module)}
    for node in modules.values():
        for name, value in (*vars(node).items(), *dict.items(node)):
            functions = () if _is_method_of(value, modules) else filter(callable, _contents(value, seen))
            if any(_reaches(function, modules) for function in functions):
                raise TypeError(
                    f"{type(node).__name__}.{name} {'is' if callable(value) else 'contains'} a function that holds a "
                    "module of this one. It would always compute with the arrays that the module has now. "
                    "Make it in the method that calls it, or keep the module itself as an attribute."
                )


def _reaches(function: object, modules: Container[int]) -> bool:
    """Tell whether a function holds one of the modules, directly or through functions and containers that it holds."""
    waiting, seen = [function], set()
    while waiting:
        value = waiting.pop()
        if id(value) in modules:
            return True
        if id(value) not in seen and (callable(value) or isinstance(value, (dict, list, tuple, CellType))):
            seen.add(id(value))
            waiting += _referents(value)
    return False


def _referents(value: object) -> list[Any]:
    """List the objects that a value refers to, without the attributes of a class or the globals of a function."""
    if isinstance(value, type):
        return []
    if type(value) is FunctionType:
        return [value.__closure__, value.__defaults__, value.__kwdefaults__]
    return gc.get_referents(value)


def _contents(value: Node, seen: set[int]) -> Iterator[Node]:
    """Yield a value and, for a module, dict, list or tuple, all values in it; skip the modules in `seen`."""
    kind = type(value)  # `isinstance` accepts `mx.compile(module)` as a module
    if issubclass(kind, Module):
        if id(value) in seen:
            return
        seen.add(id(value))
    yield value
    if issubclass(kind, (dict, list, tuple)):
        for child in dict.values(value) if issubclass(kind, dict) else value:
            yield from _contents(child, seen)


def set_arrays(node: Node, params: Params) -> None:
    """Put the arrays of `params` into a clone; each array is a new object, because a module may use `+=`."""
    for key, value in params.items() if isinstance(params, dict) else enumerate(params):
        if isinstance(node, dict) and key not in node:
            raise KeyError(f"{key!r} has no place in {type(node).__name__}: restore_like makes a tree of named weights")
        if isinstance(value, (dict, list, tuple)):
            set_arrays(node[key], value)
        elif isinstance(node, dict):
            dict.__setitem__(node, key, value.astype(value.dtype))
        else:
            node[key] = value.astype(value.dtype)


def get_arrays(node: Node, params: Params) -> Params:
    """Return the arrays of a module at the paths of `params`.

    If the shapes differ, the module has changed the array for its mode only, and the array of `params` is returned.
    """
    if isinstance(params, dict):
        return {key: get_arrays(node.get(key, value), value) for key, value in params.items()}
    if isinstance(params, (list, tuple)):
        return [get_arrays(node[i], value) for i, value in enumerate(params)]
    return node if node.shape == params.shape else params


def constants(module: mlx_nn.Module) -> list[Array]:
    """List the arrays of a module that are not parameters; the layer keeps them as constants."""
    parameter_ids = {id(leaf) for leaf in flat(module.parameters()).values()}
    arrays = [value for value in _contents(module, set()) if isinstance(value, mx.array)]
    return [array for array in arrays if id(array) not in parameter_ids]
