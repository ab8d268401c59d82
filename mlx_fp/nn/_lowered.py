"""A composition of layers as an mlx.nn module."""

from __future__ import annotations

from typing import Any

from ..compile import rng
from ..core._mlx import mlx_nn, mx
from ..core._types import Params
from ..tree._paths import copy_arrays, flat
from ._call import Output
from ._layer import Layer
from ._module import Module, parameters

__all__ = ["Lowered", "freeze_rest"]


class Lowered(mlx_nn.Module):
    """A module that holds the arrays of a layer and runs the layer on them."""

    def __init__(self, target: Layer, params: Params) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # MLX does not annotate it
        self._layer = target
        for name, child in copy_arrays(params).items():
            self[name] = _node(child)

    def __call__(self, *xs: object, **kw: Any) -> Output:
        """Run the layer, and keep the updated buffers."""
        params = parameters(self)
        y, params = rng.ambient(lambda: self._layer.apply(params, *xs, train=self.training, **kw))
        self.update(params)
        return y


def _node(tree: Params) -> Any:
    """Turn nested dicts into modules, because each module freezes its own leaves."""
    if isinstance(tree, dict):
        module = Module()
        for name, child in tree.items():
            module[name] = _node(child)
        return module
    return [_node(child) for child in tree] if isinstance(tree, (list, tuple)) else tree


def freeze_rest(module: mlx_nn.Module, params: Params, target: Layer) -> mlx_nn.Module:
    """Freeze in a module the parameters that do not train in the layer; return the module."""
    trains = target.trainable(params)
    leaves = flat(params)

    def freeze(path: str, node: mlx_nn.Module) -> None:
        prefix = f"{path}." if path else ""
        names = [key for key, value in node.items() if isinstance(value, mx.array) and prefix + key in leaves]
        if names:  # only the first path of a shared module has parameters
            node._no_grad = {key for key in names if not trains(prefix + key, leaves[prefix + key])}

    module.apply_to_modules(freeze)
    return module
