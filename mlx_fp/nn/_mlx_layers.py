"""Every layer and activation of mlx.nn, by its snake_case name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, overload

from ..core._mlx import mlx_nn
from ..core._signature import arguments
from ..core._types import Array
from ..tree._flattening import as_arrays
from ._layer import Layer
from ._lift import fn, lift

__all__ = [
    "alibi",
    "all_to_sharded_linear",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "celu",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "dropout",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "fully_sharded_module",
    "gelu",
    "gelu_approx",
    "gelu_fast_approx",
    "glu",
    "group_norm",
    "gru",
    "hard_shrink",
    "hard_tanh",
    "hardswish",
    "identity",
    "instance_norm",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "lstm",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mish",
    "multi_head_attention",
    "prelu",
    "qq_linear",
    "quantized_all_to_sharded_linear",
    "quantized_embedding",
    "quantized_linear",
    "quantized_sharded_to_all_linear",
    "relu",
    "relu2",
    "relu6",
    "rms_norm",
    "rnn",
    "rope",
    "selu",
    "sharded_to_all_linear",
    "sigmoid",
    "silu",
    "sinusoidal_positional_encoding",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "step",
    "tanh",
    "transformer",
    "transformer_decoder",
    "transformer_decoder_layer",
    "transformer_encoder",
    "transformer_encoder_layer",
    "upsample",
]


P = ParamSpec("P")


def _lifted(cls: Callable[P, mlx_nn.Module]) -> Callable[P, Layer]:
    """Return the constructor of a lifted layer: the class's own arguments, checked, make a Layer."""

    def make(*args: P.args, **kwargs: P.kwargs) -> Layer:
        return lift(cls, *args, **kwargs)

    make.__doc__ = f"Make a Layer of `mlx.nn.{cls.__name__}`: its arguments, its parameter paths.\n\n{cls.__doc__}"
    make.__name__ = make.__qualname__ = cls.__name__
    make.__wrapped__ = cls  # type: ignore[attr-defined]  # tells compositions which class a bare name means
    return make


class Activation:
    """An activation: a function of arrays, and, called with options and no array, a Layer that applies it so.

    >>> relu(mx.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    >>> leaky_relu(negative_slope=0.5).apply({}, mx.array([-1.0]))[0].tolist()
    [-0.5]
    """

    def __init__(self, function: Callable[..., Array], cls: Callable[..., mlx_nn.Module]) -> None:
        self._function, self._cls = function, cls
        self.__name__, self.__wrapped__ = function.__name__, cls
        self.__doc__ = f"Apply `mlx.nn.{self.__name__}`, or make a Layer of it.\n\n{function.__doc__}"

    @overload
    def __call__(self, x: Array, /, *args: Any, **options: Any) -> Array: ...
    @overload
    def __call__(self, *args: Any, **options: Any) -> Layer: ...
    def __call__(self, *args: Any, **options: Any) -> Array | Layer:
        """Apply to an array, or make a Layer of options."""
        if args and hasattr(args[0], "__array__"):  # numpy's too
            return self._function(*as_arrays(args), **options)
        try:
            arguments(self._cls, args, options)
        except TypeError:  # options that only the function has, such as an axis
            arguments(self._function, (None, *args), options)
            return fn(lambda x: self._function(x, *args, **options), self.__name__)
        return lift(self._cls, *args, **options)

    def __repr__(self) -> str:
        return f"nn.{self.__name__}"

    def __reduce__(self) -> str:
        return self.__name__  # a constant of this module


alibi = _lifted(mlx_nn.ALiBi)
all_to_sharded_linear = _lifted(mlx_nn.AllToShardedLinear)
avg_pool1d = _lifted(mlx_nn.AvgPool1d)
avg_pool2d = _lifted(mlx_nn.AvgPool2d)
avg_pool3d = _lifted(mlx_nn.AvgPool3d)
batch_norm = _lifted(mlx_nn.BatchNorm)
bilinear = _lifted(mlx_nn.Bilinear)
conv1d = _lifted(mlx_nn.Conv1d)
conv2d = _lifted(mlx_nn.Conv2d)
conv3d = _lifted(mlx_nn.Conv3d)
conv_transpose1d = _lifted(mlx_nn.ConvTranspose1d)
conv_transpose2d = _lifted(mlx_nn.ConvTranspose2d)
conv_transpose3d = _lifted(mlx_nn.ConvTranspose3d)
dropout = _lifted(mlx_nn.Dropout)
dropout2d = _lifted(mlx_nn.Dropout2d)
dropout3d = _lifted(mlx_nn.Dropout3d)
embedding = _lifted(mlx_nn.Embedding)
fully_sharded_module = _lifted(mlx_nn.FullyShardedModule)
group_norm = _lifted(mlx_nn.GroupNorm)
gru = _lifted(mlx_nn.GRU)
identity = _lifted(mlx_nn.Identity)
instance_norm = _lifted(mlx_nn.InstanceNorm)
layer_norm = _lifted(mlx_nn.LayerNorm)
linear = _lifted(mlx_nn.Linear)
lstm = _lifted(mlx_nn.LSTM)
max_pool1d = _lifted(mlx_nn.MaxPool1d)
max_pool2d = _lifted(mlx_nn.MaxPool2d)
max_pool3d = _lifted(mlx_nn.MaxPool3d)
multi_head_attention = _lifted(mlx_nn.MultiHeadAttention)
qq_linear = _lifted(mlx_nn.QQLinear)
quantized_all_to_sharded_linear = _lifted(mlx_nn.QuantizedAllToShardedLinear)
quantized_embedding = _lifted(mlx_nn.QuantizedEmbedding)
quantized_linear = _lifted(mlx_nn.QuantizedLinear)
quantized_sharded_to_all_linear = _lifted(mlx_nn.QuantizedShardedToAllLinear)
rms_norm = _lifted(mlx_nn.RMSNorm)
rnn = _lifted(mlx_nn.RNN)
rope = _lifted(mlx_nn.RoPE)
sharded_to_all_linear = _lifted(mlx_nn.ShardedToAllLinear)
sinusoidal_positional_encoding = _lifted(mlx_nn.SinusoidalPositionalEncoding)
transformer = _lifted(mlx_nn.Transformer)
transformer_decoder = _lifted(mlx_nn.TransformerDecoder)
transformer_decoder_layer = _lifted(mlx_nn.TransformerDecoderLayer)
transformer_encoder = _lifted(mlx_nn.TransformerEncoder)
transformer_encoder_layer = _lifted(mlx_nn.TransformerEncoderLayer)
upsample = _lifted(mlx_nn.Upsample)

celu = Activation(mlx_nn.celu, mlx_nn.CELU)
elu = Activation(mlx_nn.elu, mlx_nn.ELU)
gelu = Activation(mlx_nn.gelu, mlx_nn.GELU)
glu = Activation(mlx_nn.glu, mlx_nn.GLU)
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
