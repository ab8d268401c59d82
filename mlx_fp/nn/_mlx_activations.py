"""Every activation of mlx.nn, by its snake_case name: a function of an array, and a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import Signature
from typing import Any, overload

from ..core._mlx import mlx_nn
from ..core._mlx_text import lifted_text, mlx_page, printed_call, shown_signature
from ..core._signature import arguments
from ..core._types import Array
from ..tree._conversion import as_arrays
from ._layer import Layer
from ._lift import fn, lift

__all__ = [
    "celu",
    "elu",
    "gelu",
    "gelu_approx",
    "gelu_fast_approx",
    "glu",
    "hard_shrink",
    "hard_tanh",
    "hardswish",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "prelu",
    "relu",
    "relu2",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "step",
    "tanh",
]


class Activation:
    """An activation function. Called with an array, it returns an array; called with options only, it returns a Layer.

    >>> relu(mx.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    >>> leaky_relu(negative_slope=0.5)
    LeakyReLU(negative_slope=0.5)
    >>> leaky_relu(negative_slope=0.5).apply({}, mx.array([-1.0]))[0].tolist()
    [-0.5]
    """

    def __init__(
        self, function: Callable[..., Array], cls: Callable[..., mlx_nn.Module], shapes: str = "(…) -> (…)"
    ) -> None:
        self._function, self._cls = function, cls
        self.__name__, self.__wrapped__ = function.__name__, cls
        page = mlx_page("nn/_autosummary_functions", f"mlx.nn.{self.__name__}")
        first_line = f"Apply `mlx.nn.{self.__name__}` to an array, `{shapes}`, or make a Layer from options."
        self.__doc__ = lifted_text(first_line, page, function)

    @property
    def __signature__(self) -> Signature | None:
        """The options: a Layer is made without an array. `inspect.signature` reads it."""
        return shown_signature(self._cls, "Array | Layer")

    @overload
    def __call__(self, x: Array, /, *args: Any, **options: Any) -> Array: ...
    @overload
    def __call__(self, *args: Any, **options: Any) -> Layer: ...
    def __call__(self, *args: Any, **options: Any) -> Array | Layer:
        """Apply the function to an array, or make a Layer from options."""
        if args and hasattr(args[0], "__array__"):  # of MLX or numpy
            return self._function(*as_arrays(args), **options)
        try:
            arguments(self._cls, args, options)
        except TypeError:  # options of the function alone, for example an axis
            arguments(self._function, (None, *args), options)
            applied = fn(lambda x: self._function(x, *args, **options), self.__name__)
            return replace(applied, label=printed_call(self.__name__, partial(self._function, None), args, options))
        return lift(self._cls, *args, **options)

    def __repr__(self) -> str:
        return f"nn.{self.__name__}"

    def __reduce__(self) -> str:
        return self.__name__  # a constant of this module


celu = Activation(mlx_nn.celu, mlx_nn.CELU)
elu = Activation(mlx_nn.elu, mlx_nn.ELU)
gelu = Activation(mlx_nn.gelu, mlx_nn.GELU)
glu = Activation(mlx_nn.glu, mlx_nn.GLU, "(…, 2 * d) -> (…, d)")
hard_shrink = Activation(mlx_nn.hard_shrink, mlx_nn.HardShrink)
hard_tanh = Activation(mlx_nn.hard_tanh, mlx_nn.HardTanh)
hardswish = Activation(mlx_nn.hardswish, mlx_nn.Hardswish)
leaky_relu = Activation(mlx_nn.leaky_relu, mlx_nn.LeakyReLU)
log_sigmoid = Activation(mlx_nn.log_sigmoid, mlx_nn.LogSigmoid)
log_softmax = Activation(mlx_nn.log_softmax, mlx_nn.LogSoftmax)
mish = Activation(mlx_nn.mish, mlx_nn.Mish)
prelu = Activation(mlx_nn.prelu, mlx_nn.PReLU)
relu = Activation(mlx_nn.relu, mlx_nn.ReLU)
relu2 = Activation(mlx_nn.relu2, mlx_nn.ReLU2)
relu6 = Activation(mlx_nn.relu6, mlx_nn.ReLU6)
selu = Activation(mlx_nn.selu, mlx_nn.SELU)
sigmoid = Activation(mlx_nn.sigmoid, mlx_nn.Sigmoid)
silu = Activation(mlx_nn.silu, mlx_nn.SiLU)
softmax = Activation(mlx_nn.softmax, mlx_nn.Softmax)
softmin = Activation(mlx_nn.softmin, mlx_nn.Softmin)
softplus = Activation(mlx_nn.softplus, mlx_nn.Softplus)
softshrink = Activation(mlx_nn.softshrink, mlx_nn.Softshrink)
softsign = Activation(mlx_nn.softsign, mlx_nn.Softsign)
step = Activation(mlx_nn.step, mlx_nn.Step)
tanh = Activation(mlx_nn.tanh, mlx_nn.Tanh)
gelu_approx = mlx_nn.gelu_approx
gelu_fast_approx = mlx_nn.gelu_fast_approx
