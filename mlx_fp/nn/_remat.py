"""Gradient checkpointing: drop the activations of a layer, and compute them again for the gradients."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import overload

from ..compile._recomputed import recomputed
from ..core._types import Params
from ..tree._paths import divided, merge
from ..tree._select import Select, select
from ._call import Inputs, Keywords, Result
from ._head_tap import untapped
from ._layer import Apply, Layer, renamed, require_layer
from ._lift import as_layer
from ._module_call import ModuleCall
from ._rebuilt import rebuilt
from ._recomputing import marked
from ._replaced import chosen_by
from ._surgery import places_of
from ._tree_path import joined

__all__ = ["remat"]

_SPECS = (str, re.Pattern, list, tuple, set, frozenset, Select)


@overload
def remat(  # type: ignore[overload-overlap]  # a spec is no entry
    entry: str | re.Pattern[str] | list[object] | tuple[object, ...] | set[object] | frozenset[object] | Select,
) -> Callable[[Layer], Layer]: ...
@overload
def remat(entry: object) -> Layer: ...
def remat(entry: object) -> Layer | Callable[[Layer], Layer]:
    """Drop the activations of a layer, and compute them again for the gradients: less memory, more time.

    Outputs, gradients and random numbers are the same as without `remat`. The gradients are computed in order, the last
    layer first, so the activations of one such layer at a time are in memory. Arguments that are not arrays, dicts,
    lists or tuples are constants. See Chen et al., Training Deep Nets with Sublinear Memory Cost,
    https://arxiv.org/abs/1604.06174.

    Args:
        entry: A Layer, an mlx.nn module or its class, or a callable. Or a spec as in `nn.replaced`, but no function,
            which chooses parts of a composition and modules inside lifted modules by their paths. For example,
            `remat("model.layers")` chooses each block of a list. Of a part and a part inside it, the outer one is
            recomputed.

    Returns:
        A Layer with the same parameters. For a spec, a function of a Layer that returns such a Layer.

    Raises:
        KeyError: The spec, or a part of it, chooses no part; the message has the nearest paths.
        TypeError: The part is inside a layer that cannot be rebuilt.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> model = remat(nn.sequential(nn.linear(4, 4), nn.dropout(0.5)))
    >>> model.apply(nn.init(0)(model), mx.ones((2, 4)), train=True, key=1)[0].shape
    (2, 4)
    """
    if isinstance(entry, _SPECS):
        chosen = select(entry)
        return lambda target: _remat_parts(chosen, require_layer(target, "remat"))
    inner = as_layer(entry, "remat's layer")

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        weight = inner.trainable.leaves(params) | inner.trainable(params)

        def forward(params: Params, xs: Inputs, kw: Keywords) -> Result:
            y, after = inner.apply.run(params, xs, kw, train)
            return y, divided(weight)(after)[1]

        y, buffers = untapped(lambda: recomputed(forward, params, xs, kw))
        return y, merge(divided(weight)(params)[0], buffers)

    return renamed(replace(inner, apply=Apply(run, lambda change: remat(change("", inner)))), "remat({})")


def _remat_parts(chosen: Select, target: Layer) -> Layer:
    wanted = chosen_by(chosen, target, lambda place: bool(place.path), "part")
    paths = {place.path for place in places_of(target) if wanted(place)}
    return _remat_below(target, "", [path for path in paths if not path.startswith(_inside(paths))])


def _remat_below(target: Layer, path: str, paths: list[str]) -> Layer:
    """Rematerialise the parts at `paths`, of which each lies at or below `path`."""
    if not paths:
        return target
    if path in paths:
        return remat(target)

    def change(name: str, part: Layer) -> Layer:
        below = joined(path, name)
        return _remat_below(part, below, [each for each in paths if each == below or each.startswith(f"{below}.")])

    run = target.apply.run
    if target.apply.rebuild is not None:
        return replace(rebuilt(target, change), init=target.init)
    if isinstance(run, ModuleCall):
        inside = [each.removeprefix(f"{path}.") for each in paths]
        return replace(target, apply=Apply(replace(run, template=marked(run.template, inside))))
    raise TypeError(f"{target.name} cannot get another part: give `nn.layer` a function `rebuild`")


def _inside(paths: set[str]) -> tuple[str, ...]:
    return tuple(f"{path}." for path in paths)
