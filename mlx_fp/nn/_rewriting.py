"""Parts that become other modules, made from the module with its arrays: adapters, quantised modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..compile import rng
from ..core._mlx import mlx_nn
from ..core._types import Params
from ._layer import Layer
from ._lift import printed_sizes
from ._module import parameters
from ._module_call import ModuleCall, layer_of_module
from ._surgery import Edit, Place

__all__ = ["rewriting"]


def rewriting(chosen: Callable[[Place], bool], rewrite: Callable[[mlx_nn.Module], mlx_nn.Module]) -> Edit:
    """Return the edit that puts `rewrite(module)` in the place of each chosen module.

    `rewrite` gets a module with the arrays of its place, which it may keep and change.
    """

    def rewritten(part: Layer) -> mlx_nn.Module:
        run = part.apply.run
        assert isinstance(run, ModuleCall)
        return rewrite(run.bound(part.init(), train=True))

    def arrays(part: Layer) -> Params:
        return parameters(rewritten(part))

    def make(part: Layer) -> Layer:
        module = rng.run(0, lambda: rewritten(part))[0]  # the random stream of the program does not move
        return replace(layer_of_module(module, lambda: arrays(part)), label=printed_sizes(module))

    return Edit(chosen, make, arrays)
