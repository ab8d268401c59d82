"""A module as structure and arrays: copy the one, take the other out, put others in."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from operator import getitem, is_
from types import CellType, FunctionType, MappingProxyType, MethodType
from typing import Any

import mlx.nn as mlx_nn

from ..core._mlx import mx
from ..core._types import Params
from ..tree._paths import flat, fresh

__all__ = ["AS_THEY_ARE", "Module", "fill", "hidden", "parameters", "read", "refuse_compiled", "structure"]

Module = mlx_nn.Module

_HOLDERS = frozenset({dict, list, tuple, MethodType, FunctionType, partial})
"""What may hold a module, beside modules."""

AS_THEY_ARE: Mapping[type, type] = MappingProxyType({})
"""No class computed by another."""


def parameters(module: mlx_nn.Module) -> Params:
    """Return the parameters and buffers of a module as a plain tree, each array as an object of its own.

    Those of a module that stands in several places are in the first of them alone.
    """
    tree: Params = fresh(module.parameters())
    for *above, last in _repeated(module, set()):
        reduce(getitem, above, tree)[last] = {}
    return tree


def structure(module: Any, classes: Mapping[type, type] = AS_THEY_ARE) -> Any:
    """Copy a module, those in it, and their arrays as objects, for a module may use `+=`; some classes by others.

    What stands in two places stays one, and methods and functions that a module keeps as attributes are of the copies.
    """
    seen: dict[int, Any] = {}
    copy = _copied(module, seen, classes)
    for node in [one for one in seen.values() if isinstance(one, Module)]:
        node.__dict__.update({k: _rebound(v, seen) for k, v in vars(node).items() if type(v) in _HOLDERS})
        dict.update(node, {k: _rebound(v, seen) for k, v in node.items() if type(v) in _HOLDERS})
    return copy


def refuse_compiled(module: mlx_nn.Module) -> None:
    """Raise TypeError for an attribute that MLX has made of one of the modules, whose arrays it would always use."""
    modules = [one for one in module.modules() if issubclass(type(one), Module)]  # a compiled module says it is one
    known = {id(one) for one in modules}
    for one in modules:
        for name, value in (*vars(one).items(), *dict.items(one)):
            copied = issubclass(type(value), (Module, MethodType, tuple))
            if not copied and _reaches(value, known, depth=4):
                raise TypeError(
                    f"{type(one).__name__}.{name} is a function made of a module, and would always compute with the "
                    "arrays that the module has now: make it in the method that calls it"
                )


def _reaches(value: Any, modules: set[int], depth: int, made: bool = False) -> bool:
    """Tell whether something is, or holds, what MLX has made of one of some modules, by `mx.compile` say."""
    if id(value) in modules:
        return made
    made = made or type(value).__module__ == "mlx.core"
    followed = made or isinstance(value, (FunctionType, MethodType, partial, tuple))
    return followed and depth > 0 and any(_reaches(one, modules, depth - 1, made) for one in _held(value))


def _rebound(value: Any, seen: dict[int, Any]) -> Any:
    """Return a method or function over modules, or a list of such, as over their copies; anything else as it is."""
    if id(value) not in seen:
        seen[id(value)] = value  # it may hold itself
        seen[id(value)] = _over(value, lambda one: _rebound(one, seen))
    return seen[id(value)]


def _over(value: Any, rebound: Callable[[Any], Any]) -> Any:
    if type(value) is dict:
        made = {key: rebound(one) for key, one in value.items()}
        return value if all(map(is_, made.values(), value.values())) else made
    if type(value) in (list, tuple):
        parts = type(value)(map(rebound, value))
        return value if all(map(is_, parts, value)) else parts
    if isinstance(value, MethodType):
        return MethodType(value.__func__, rebound(value.__self__))
    if isinstance(value, partial):
        return partial(rebound(value.func), *map(rebound, value.args), **rebound(value.keywords))
    if isinstance(value, FunctionType) and (value.__closure__ or value.__defaults__):
        return _closed_over(value, rebound)
    return value


def _closed_over(function: FunctionType, rebound: Callable[[Any], Any]) -> FunctionType:
    full = [
        cell if cell == CellType() else CellType(rebound(cell.cell_contents)) for cell in function.__closure__ or ()
    ]
    defaults = tuple(map(rebound, function.__defaults__ or ())) or None
    made = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, tuple(full) or None)
    made.__dict__.update(function.__dict__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _held(value: Any) -> list[Any]:
    """Return what a callable is made of, but for the globals of a function, which may hold anything."""
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        return [*cells, *(value.__defaults__ or ())]
    return gc.get_referents(value)


def _repeated(node: Any, seen: set[int]) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of modules that stand elsewhere before."""
    if isinstance(node, Module):
        if id(node) in seen:
            yield ()
            return
        seen.add(id(node))
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        if not (isinstance(node, Module) and str(key).startswith("_")):
            yield from ((key, *below) for below in _repeated(child, seen))


def _copied(node: Any, seen: dict[int, Any], classes: Mapping[type, type]) -> Any:
    if isinstance(node, mx.array):
        return node.astype(node.dtype)
    if not isinstance(node, (dict, list, tuple)):
        return node
    if id(node) in seen:
        return seen[id(node)]
    if isinstance(node, Module):
        kind: Any = classes.get(type(node), type(node))
        copy = kind.__new__(kind)
        seen[id(node)] = copy
        copy.__dict__.update(node.__dict__)
        copy._no_grad = set(node._no_grad)
        for key, child in node.items():
            dict.__setitem__(copy, key, _copied(child, seen, classes))
        return copy
    if isinstance(node, dict):
        return {key: _copied(child, seen, classes) for key, child in node.items()}
    items = [_copied(child, seen, classes) for child in node]
    if isinstance(node, list):
        return items
    return type(node)(*items) if hasattr(node, "_fields") else type(node)(items)


def fill(node: Any, params: Params) -> None:
    """Put the arrays of `params` into a structural copy, each as an object of its own: a module may use `+=`."""
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
    """Read the arrays at the places of `params` back; one of another shape is the module's own form for the mode."""
    if isinstance(params, dict):
        return {key: read(node.get(key, value), value) for key, value in params.items()}
    if isinstance(params, (list, tuple)):
        return [read(node[i], value) for i, value in enumerate(params)]
    return node if node.shape == params.shape else params


def hidden(module: mlx_nn.Module) -> list[Any]:
    """List the arrays that a module holds beside its parameters; they are constants of the layer."""
    own = {id(leaf) for leaf in flat(module.parameters()).values()}
    found: list[Any] = []

    def walk(node: Any) -> None:
        if isinstance(node, (dict, list, tuple)):
            for child in node.values() if isinstance(node, dict) else node:
                walk(child)
        elif isinstance(node, mx.array) and id(node) not in own:
            found.append(node)

    walk(module)
    return found
