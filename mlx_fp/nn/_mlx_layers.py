"""Every layer and activation of mlx.nn, by its snake_case name.

Shapes are written as `inputs -> outputs`. An input mask is given as the shape to which it broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, overload

from ..core._mlx import mlx_nn
from ..core._mlx_text import lifted_text, mlx_page, printed_call, show_as
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


def _constructor(cls: Callable[P, mlx_nn.Module], shapes: str = "") -> Callable[P, Layer]:
    """Return a function that takes the arguments of a class of mlx.nn, checks them, and makes a Layer."""

    def make(*args: P.args, **kwargs: P.kwargs) -> Layer:
        return lift(cls, *args, **kwargs)

    name = cls.__name__
    first_line = f"Make a Layer of `mlx.nn.{name}`" + (f": `{shapes}`." if shapes else ".")
    make.__doc__ = lifted_text(first_line, mlx_page("nn/_autosummary", f"mlx.nn.{name}"), cls)
    make.__name__ = make.__qualname__ = name
    make.__wrapped__ = cls  # type: ignore[attr-defined]  # a composition reads the class of a bare name here
    return show_as(make, cls, "Layer")


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
        show_as(self, cls, "Array | Layer")  # the options: a Layer is made without an array

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


alibi = _constructor(mlx_nn.ALiBi, "(n, heads, queries, keys) -> (n, heads, queries, keys)")
all_to_sharded_linear = _constructor(mlx_nn.AllToShardedLinear, "(…, input_dims) -> (…, output_dims / devices)")
avg_pool1d = _constructor(mlx_nn.AvgPool1d, "(n, length, channels) -> (n, length_out, channels)")
avg_pool2d = _constructor(mlx_nn.AvgPool2d, "(n, h, w, channels) -> (n, h_out, w_out, channels)")
avg_pool3d = _constructor(mlx_nn.AvgPool3d, "(n, d, h, w, channels) -> (n, d_out, h_out, w_out, channels)")
batch_norm = _constructor(mlx_nn.BatchNorm, "(n, …, num_features) -> (n, …, num_features)")
bilinear = _constructor(mlx_nn.Bilinear, "(…, input1_dims), (…, input2_dims) -> (…, output_dims)")
conv1d = _constructor(mlx_nn.Conv1d, "(n, length, in_channels) -> (n, length_out, out_channels)")
conv2d = _constructor(mlx_nn.Conv2d, "(n, h, w, in_channels) -> (n, h_out, w_out, out_channels)")
conv3d = _constructor(mlx_nn.Conv3d, "(n, d, h, w, in_channels) -> (n, d_out, h_out, w_out, out_channels)")
conv_transpose1d = _constructor(mlx_nn.ConvTranspose1d, "(n, length, in_channels) -> (n, length_out, out_channels)")
conv_transpose2d = _constructor(mlx_nn.ConvTranspose2d, "(n, h, w, in_channels) -> (n, h_out, w_out, out_channels)")
conv_transpose3d = _constructor(
    mlx_nn.ConvTranspose3d, "(n, d, h, w, in_channels) -> (n, d_out, h_out, w_out, out_channels)"
)
dropout = _constructor(mlx_nn.Dropout, "(…) -> (…)")
dropout2d = _constructor(mlx_nn.Dropout2d, "(…, h, w, channels) -> (…, h, w, channels)")
dropout3d = _constructor(mlx_nn.Dropout3d, "(…, d, h, w, channels) -> (…, d, h, w, channels)")
embedding = _constructor(mlx_nn.Embedding, "(…) -> (…, dims)")
fully_sharded_module = _constructor(mlx_nn.FullyShardedModule)
group_norm = _constructor(mlx_nn.GroupNorm, "(n, …, dims) -> (n, …, dims)")
gru = _constructor(mlx_nn.GRU, "(…, length, input_size) -> (…, length, hidden_size)")
identity = _constructor(mlx_nn.Identity, "(…) -> (…)")
instance_norm = _constructor(mlx_nn.InstanceNorm, "(n, …, dims) -> (n, …, dims)")
layer_norm = _constructor(mlx_nn.LayerNorm, "(…, dims) -> (…, dims)")
linear = _constructor(mlx_nn.Linear, "(…, input_dims) -> (…, output_dims)")
lstm = _constructor(
    mlx_nn.LSTM,
    "(…, length, input_size) -> (…, length, hidden_size), (…, length, hidden_size)",
)
max_pool1d = _constructor(mlx_nn.MaxPool1d, "(n, length, channels) -> (n, length_out, channels)")
max_pool2d = _constructor(mlx_nn.MaxPool2d, "(n, h, w, channels) -> (n, h_out, w_out, channels)")
max_pool3d = _constructor(mlx_nn.MaxPool3d, "(n, d, h, w, channels) -> (n, d_out, h_out, w_out, channels)")
multi_head_attention = _constructor(
    mlx_nn.MultiHeadAttention,
    "(n, queries, query_input_dims), (n, keys, key_input_dims), (n, keys, value_input_dims) "
    "-> (n, queries, value_output_dims)",
)
qq_linear = _constructor(mlx_nn.QQLinear, "(…, input_dims) -> (…, output_dims)")
quantized_all_to_sharded_linear = _constructor(
    mlx_nn.QuantizedAllToShardedLinear, "(…, input_dims) -> (…, output_dims / devices)"
)
quantized_embedding = _constructor(mlx_nn.QuantizedEmbedding, "(…) -> (…, dims)")
quantized_linear = _constructor(mlx_nn.QuantizedLinear, "(…, input_dims) -> (…, output_dims)")
quantized_sharded_to_all_linear = _constructor(
    mlx_nn.QuantizedShardedToAllLinear, "(…, input_dims / devices) -> (…, output_dims)"
)
rms_norm = _constructor(mlx_nn.RMSNorm, "(…, dims) -> (…, dims)")
rnn = _constructor(mlx_nn.RNN, "(…, length, input_size) -> (…, length, hidden_size)")
rope = _constructor(mlx_nn.RoPE, "(…, length, features) -> (…, length, features)")
sharded_to_all_linear = _constructor(mlx_nn.ShardedToAllLinear, "(…, input_dims / devices) -> (…, output_dims)")
sinusoidal_positional_encoding = _constructor(mlx_nn.SinusoidalPositionalEncoding, "(…) -> (…, dims)")
transformer = _constructor(
    mlx_nn.Transformer,
    "(n, source, dims), (n, target, dims), (source, source), (target, target), (target, source) -> (n, target, dims)",
)
transformer_decoder = _constructor(
    mlx_nn.TransformerDecoder,
    "(n, target, dims), (n, source, dims), (target, target), (target, source) -> (n, target, dims)",
)
transformer_decoder_layer = _constructor(
    mlx_nn.TransformerDecoderLayer,
    "(n, target, dims), (n, source, dims), (target, target), (target, source) -> (n, target, dims)",
)
transformer_encoder = _constructor(
    mlx_nn.TransformerEncoder, "(n, length, dims), (length, length) -> (n, length, dims)"
)
transformer_encoder_layer = _constructor(
    mlx_nn.TransformerEncoderLayer, "(n, length, dims), (length, length) -> (n, length, dims)"
)
upsample = _constructor(mlx_nn.Upsample, "(n, sizes…, channels) -> (n, scaled sizes…, channels)")

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
