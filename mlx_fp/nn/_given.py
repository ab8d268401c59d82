"""Parameters that a program gives: a tree with the paths, shapes and containers of the layer's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..core._types import Params
from ..tree._paths import copy_arrays, flat, same_structure
from ._layer import Layer, require_layer, seeded, shapes

__all__ = ["check_given", "check_tree", "pretrained"]


def pretrained(params: Params) -> Callable[[Layer], Layer]:
    """Give a layer parameters that its `init` returns, for example to put adapters on trained parameters.

    Args:
        params: The parameters, a tree. The layer keeps them in memory.

    Returns:
        A function of a Layer. It returns a changed copy, whose `init` returns these parameters for every seed.

    Raises:
        ValueError: The parameters are not those of the layer.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> dense = pretrained({"weight": mx.ones((2, 3)), "bias": mx.zeros((2,))})(nn.linear(3, 2))
    >>> nn.init(5)(dense)["weight"].sum().item()
    6.0
    """
    check_tree(params)
    kept = copy_arrays(params)

    def give(target: Layer) -> Layer:
        check_given(require_layer(target, "pretrained"), kept)
        return replace(target, init=seeded(lambda: copy_arrays(kept)))

    return give


def check_tree(params: object) -> None:
    """Raise TypeError unless parameters are a tree.

    >>> check_tree(0)
    Traceback (most recent call last):
    TypeError: parameters are a tree of arrays, as nn.init(seed)(model) makes it; got int
    """
    if not isinstance(params, (dict, list, tuple)):
        hint = ": give its .params" if hasattr(params, "params") else ""
        kind = type(params).__name__
        raise TypeError(f"parameters are a tree of arrays, as nn.init(seed)(model) makes it; got {kind}{hint}")


def check_given(target: Layer, params: Params) -> None:
    """Raise ValueError unless the given parameters have the paths, shapes and containers of the layer's own."""
    check_tree(params)
    expected_tree = shapes(target)
    expected, given = ({path: _shape(leaf) for path, leaf in flat(tree).items()} for tree in (expected_tree, params))
    wrong = [path for path in expected | given if expected.get(path, ...) != given.get(path, ...)]
    if wrong:
        texts = [f"{path} is {expected.get(path, 'not there')}, given {given.get(path, 'nothing')}" for path in wrong]
        raise ValueError(f"the parameters are not those of {target.name}: {'; '.join(texts[:5])}")
    if not same_structure(expected_tree, params):
        raise ValueError(
            f"the parameters have the paths of {target.name}, but other containers, as a file of weights has: "
            "restore_like(nn.shapes(model), params) puts them in place"
        )


def _shape(leaf: object) -> object:
    return getattr(leaf, "shape", type(leaf).__name__)
