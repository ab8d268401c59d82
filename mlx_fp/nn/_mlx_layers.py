"""Every layer of mlx.nn but the activations, by its snake_case name.

Shapes are written as `inputs -> outputs`. An input mask is given as the shape to which it broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from ..core._mlx import mlx_nn
from ..core._mlx_text import lifted_text, mlx_page, show_as
from ._layer import Layer
from ._lift import lift

__all__ = [
    "alibi",
    "all_to_sharded_linear",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "dropout",
    "dropout2d",
    "dropout3d",
    "embedding",
    "fully_sharded_module",
    "group_norm",
    "gru",
    "identity",
    "instance_norm",
    "layer_norm",
    "linear",
    "lstm",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "multi_head_attention",
    "qq_linear",
    "quantized_all_to_sharded_linear",
    "quantized_embedding",
    "quantized_linear",
    "quantized_sharded_to_all_linear",
    "rms_norm",
    "rnn",
    "rope",
    "sharded_to_all_linear",
    "sinusoidal_positional_encoding",
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
