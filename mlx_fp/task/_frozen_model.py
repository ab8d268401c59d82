"""The frozen second model of a loss: a part of the trained model, or the model itself on other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..core._mlx import mx, utils
from ..core._types import Forward, Params, Tree

__all__ = ["FrozenModel", "check_frozen_model", "frozen_model"]

FrozenModel: TypeAlias = str | Callable[[Params], Params]
"""The name of a layer of `nn.with_frozen`, or a function of the parameters of the trained model that returns those at
which the same model is the frozen one."""


def check_frozen_model(taker: str, name: str, source: object) -> None:
    """Raise TypeError for an option that names no frozen model; `taker` and `name` are those of the option.

    >>> check_frozen_model("distillation", "teacher", 3)
    Traceback (most recent call last):
    TypeError: teacher of distillation is the name of a layer of nn.with_frozen or a function of parameters; got 3
    """
    if not callable(source) and not (isinstance(source, str) and source.isidentifier()):
        choices = "the name of a layer of nn.with_frozen or a function of parameters"
        raise TypeError(f"{name} of {taker} is {choices}; got {source!r}")


def frozen_model(forward: Forward, source: FrozenModel) -> Callable[..., Tree]:
    """Return a function that calls the frozen model of a loss, in evaluation mode and without gradients.

    Raises:
        ValueError: The model has no part of this name.

    >>> class Twice:
    ...     def teacher(self, x):
    ...         return 2 * x
    >>> frozen_model(Twice(), "teacher")(mx.array(3.0)).item()
    6.0
    """
    if not isinstance(source, str):
        return forward.evaluated_at(source(forward.params))
    try:
        part = getattr(forward, source)
    except AttributeError as error:
        raise ValueError(
            f"the loss calls the frozen layer {source!r}, and the model has none: "
            f"nn.with_frozen({source}=(layer, params))(model)"
        ) from error

    def run(*xs: Tree, **kw: Tree) -> Tree:
        return utils.tree_map(
            lambda leaf: mx.stop_gradient(leaf) if isinstance(leaf, mx.array) else leaf, part(*xs, **kw)
        )

    return run
