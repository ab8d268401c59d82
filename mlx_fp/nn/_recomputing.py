"""Modules inside a lifted module that are computed again for their gradients.

The template of a lifted module holds a mark in each such module. For a call, the marked modules of the clone get a
class that computes with `recomputed`; all their attributes and paths stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ..compile._recomputed import recomputed
from ..core._mlx import mlx_nn
from ..core._types import Params
from ..tree._paths import divided, flat
from ..tree._select import select
from ._call import Inputs, Keywords, Output, Result
from ._head_tap import untapped
from ._module import clone, get_arrays, parameters, set_arrays

__all__ = ["buffers_of_marked", "marked", "recompute_marked"]

_MARK, _BUFFERS = "_is_recomputed", "_buffer_paths"


def marked(module: mlx_nn.Module, paths: list[str]) -> mlx_nn.Module:
    """Return a clone of a module in which the modules at `paths` have the mark."""
    copy = clone(module)
    inner = dict(copy.named_modules())
    for path in paths:
        setattr(inner[path], _MARK, True)
    return copy


def buffers_of_marked(module: mlx_nn.Module, weights: Callable[[mlx_nn.Module], set[str]]) -> dict[str, frozenset[str]]:
    """Return a path of each marked module, with the paths of its buffers: the arrays that are none of its `weights`."""
    places = {id(inner): (path, inner) for path, inner in module.named_modules() if _MARK in vars(inner)}
    return {path: frozenset(flat(parameters(inner)).keys() - weights(inner)) for path, inner in places.values()}


def recompute_marked(module: mlx_nn.Module, buffers: Mapping[str, frozenset[str]]) -> None:
    """Let the modules at the paths of `buffers` compute with `recomputed`, until the clone `module` is dropped."""
    inner = dict(module.named_modules()) if buffers else {}
    for path, names in buffers.items():
        node = inner[path]
        setattr(node, _BUFFERS, select(names))
        kind: type = type(node)
        node.__class__ = _recomputing(kind)


class _Recomputing:
    """A mixin before a class of modules. The first computation runs on the module itself, so its effects stay."""

    def __call__(self, *xs: Any, **kw: Any) -> Output:
        module: mlx_nn.Module = self  # type: ignore[assignment]  # the mixin is always used with a module
        plain: Any = type(self).__mro__[2]
        if not module.training:
            return plain.__call__(module, *xs, **kw)
        params, before, first = parameters(module), clone(module), [module]
        buffers = divided(vars(module)[_BUFFERS])

        def compute(params: Params, xs: Inputs, kw: Keywords) -> Result:
            running = first.pop() if first else clone(before)
            set_arrays(running, params)
            y = plain.__call__(running, *xs, **kw)
            return y, buffers(get_arrays(running, params))[0]

        y, after = untapped(lambda: recomputed(compute, params, xs, kw))
        set_arrays(module, params)  # another module may compute with the same arrays
        set_arrays(module, after)
        return y


@cache
def _recomputing(kind: type) -> type:
    return type(kind.__name__, (_Recomputing, kind), {"__module__": kind.__module__})
