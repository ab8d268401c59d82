"""A module as structure and arrays: copy the one, take the other out, put others in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import mlx.nn as mlx_nn

from ..door import mx
from ..tree import flat, fresh
from ..types import Params

__all__ = ["AS_THEY_ARE", "Module", "fill", "hidden", "parameters", "read", "structure"]

Module = mlx_nn.Module

AS_THEY_ARE: Mapping[type, type] = MappingProxyType({})
"""No class computed by another."""


def parameters(module: mlx_nn.Module) -> Params:
    """Return the parameters and buffers of a module as a plain tree, each array as an object of its own."""
    return fresh(module.parameters())


def structure(node: Any, seen: dict[int, Any], classes: Mapping[type, type] = AS_THEY_ARE) -> Any:
    """Copy modules, their containers, and their arrays as objects, for a module may use `+=`; what stands in two places
    stays one.
    """
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
            dict.__setitem__(copy, key, structure(child, seen, classes))
        return copy
    if isinstance(node, dict):
        return {key: structure(child, seen, classes) for key, child in node.items()}
    items = [structure(child, seen, classes) for child in node]
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
