"""The modules of LoRA and DoRA: a frozen base and matrices of low rank, with mlx-lm's names, shapes and order of sums.

LoRA: Hu et al., https://arxiv.org/abs/2106.09685. DoRA: Liu et al., https://arxiv.org/abs/2402.09353. An adapter of
mlx-lm loads into these modules, and gives the same bits.
"""

from __future__ import annotations

import math
import sys

from ..core._mlx import mlx_nn, mx
from ..core._types import Array
from ._bounds import within_bounds
from ._dense import dense_weight, is_quantized, quantized_again
from ._module import clone

__all__ = ["DoRAEmbedding", "DoRALinear", "LoRAEmbedding", "LoRALinear", "LoRASwitchLinear", "with_weight"]


class _Adapter(mlx_nn.Module):
    """A base module under the name `kind`, and two matrices whose product, times `scale`, is added to its weight."""

    kind = "linear"

    def __init__(self, base: mlx_nn.Module, rank: int, scale: float, dropout: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # MLX does not annotate it
        self[self.kind] = base
        self._add_before()
        self.dropout = mlx_nn.Dropout(dropout)
        self.scale, self.rank = scale, rank
        shape_a, shape_b, fan_in = self._shapes(rank)
        bound = 1 / math.sqrt(fan_in)
        self.lora_a = mx.random.uniform(low=-bound, high=bound, shape=shape_a)
        self.lora_b = mx.zeros(shape_b)

    @property
    def base(self) -> mlx_nn.Module:
        """The module that was adapted."""
        module: mlx_nn.Module = self[self.kind]
        return module

    def _add_before(self) -> None:
        """Add the arrays that stand before the matrices."""

    def _shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Return the shapes of both matrices, and the number that bounds the first values."""
        outputs, inputs = dense_weight(self.base).shape
        return (inputs, rank), (rank, outputs), inputs

    def _delta(self, dtype: mx.Dtype) -> Array:
        """Return the matrix that the adapter adds to the weight."""
        return ((self.scale * self.lora_b.T) @ self.lora_a.T).astype(dtype)

    @property
    def weight(self) -> Array:
        """The matrix that the adapted module computes with."""
        weight = dense_weight(self.base)
        return weight + self._delta(weight.dtype)

    def fuse(self, dequantize: bool = False) -> mlx_nn.Module:
        """Return the base with the adapter in its weight."""
        return with_weight(self.base, self.weight, dequantize=dequantize)

    def _extra_repr(self) -> str:
        return f"{type(self.base).__name__}, rank={self.rank}, scale={self.scale:g}"


class LoRALinear(_Adapter):
    """`(…, in) -> (…, out)`: a linear layer and `scale * (dropout(x) @ lora_a) @ lora_b`."""

    def __call__(self, x: Array) -> Array:
        y: Array = self.base(x)
        z = (self.dropout(x) @ self.lora_a) @ self.lora_b
        return y + (self.scale * z).astype(x.dtype)


class LoRASwitchLinear(_Adapter):
    """LoRA on the linear layers of experts, which each row of the input chooses by `indices`."""

    def _shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        experts, outputs, inputs = dense_weight(self.base).shape
        return (experts, rank, inputs), (experts, outputs, rank), inputs

    def _delta(self, dtype: mx.Dtype) -> Array:
        return ((self.scale * self.lora_b) @ self.lora_a).astype(dtype)

    def __call__(self, x: Array, indices: Array, sorted_indices: bool = False) -> Array:
        y: Array = self.base(x, indices, sorted_indices=sorted_indices)
        z = self.dropout(x)
        for matrix in (self.lora_a, self.lora_b):
            z = mx.gather_mm(z, matrix.swapaxes(-1, -2), rhs_indices=indices, sorted_indices=sorted_indices)
        return y + (self.scale * z).astype(x.dtype)


class LoRAEmbedding(_Adapter):
    """`(…) -> (…, dims)`: a table of vectors and `scale * dropout(lora_a[x] @ lora_b)`; also a head, by `as_linear`."""

    kind = "embedding"

    def _shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        count, dims = dense_weight(self.base).shape
        return (count, rank), (rank, dims), count

    def _delta(self, dtype: mx.Dtype) -> Array:
        return ((self.scale * self.lora_a) @ self.lora_b).astype(dtype)

    def __call__(self, x: Array) -> Array:
        y: Array = self.base(x)
        z = self.dropout(self.lora_a[self._rows(x)] @ self.lora_b)
        return y + (self.scale * z).astype(y.dtype)

    def as_linear(self, x: Array) -> Array:
        """Multiply with the transposed table: `(…, dims) -> (…, num_embeddings)`."""
        y: Array = self.base.as_linear(x)
        z = (self.dropout(x) @ self.lora_b.T) @ self.lora_a.T
        return y + (self.scale * z).astype(x.dtype)

    def _rows(self, x: Array) -> Array:
        """Return indices within the table; the base has NaN where an index is out of range."""
        return within_bounds(mx.array(x), self.lora_a.shape[0], negative=True)[0]


class DoRALinear(LoRALinear):
    """LoRA on the direction of each row of the weight, with its length `m` as a parameter of its own."""

    def _add_before(self) -> None:
        self.m = mx.linalg.norm(dense_weight(self.base).astype(mx.float32), axis=1)

    @property
    def weight(self) -> Array:
        """The matrix that the adapted module computes with."""
        weight = super().weight
        return _with_lengths(weight, self.m)

    def __call__(self, x: Array) -> Array:
        weight = dense_weight(self.base)
        y = x @ weight.T
        z = (self.dropout(x) @ self.lora_a) @ self.lora_b
        y = y + (self.scale * z).astype(x.dtype)
        adapted = weight + (self.scale * self.lora_b.T) @ self.lora_a.T
        length = mx.stop_gradient(mx.linalg.norm(adapted, axis=1))
        y = (self.m / length).astype(x.dtype) * y
        return y + self.base["bias"] if "bias" in self.base else y


class DoRAEmbedding(LoRAEmbedding):
    """LoRA on the direction of each vector of a table, with its length `m` as a parameter of its own."""

    def _add_before(self) -> None:
        self.m = mx.linalg.norm(dense_weight(self.base), axis=1)

    @property
    def weight(self) -> Array:
        """The table that the adapted module computes with."""
        weight = super().weight
        return _with_lengths(weight, self.m)

    def __call__(self, x: Array) -> Array:
        y: Array = self.base(x)
        rows = self._rows(x)
        z = self.scale * self.lora_a[rows] @ self.lora_b
        length = mx.stop_gradient(mx.linalg.norm(y + z, axis=-1))
        return (self.m[rows] / length)[..., None] * (y + self.dropout(z).astype(y.dtype))

    def as_linear(self, x: Array) -> Array:
        """Multiply with the transposed table: `(…, dims) -> (…, num_embeddings)`."""
        y = super().as_linear(x)
        adapted = dense_weight(self.base) + (self.scale * self.lora_a) @ self.lora_b
        return (self.m / mx.stop_gradient(mx.linalg.norm(adapted, axis=1))) * y


def _with_lengths(weight: Array, lengths: Array) -> Array:
    """Return a matrix whose rows have these lengths; as in the forward pass, no gradient goes through the old ones."""
    scales = lengths / mx.stop_gradient(mx.linalg.norm(weight, axis=1))
    return (scales[:, None] * weight).astype(weight.dtype)


def with_weight(module: mlx_nn.Module, weight: Array, *, dequantize: bool) -> mlx_nn.Module:
    """Return a copy of a linear layer or a table with another weight, quantised as before unless `dequantize`."""
    copy = clone(module)
    if is_quantized(module) and dequantize:
        copy = _dense_class(type(module)).__new__(_dense_class(type(module)))
        copy.__dict__.update({name: value for name, value in vars(module).items() if name not in _FORMAT})
        copy._no_grad = set()
        bias = {"bias": module["bias"]} if "bias" in module else {}
        arrays = {"weight": weight, **bias}
    else:
        arrays = quantized_again(weight, module) if is_quantized(module) else {"weight": weight}
    for name, value in arrays.items():
        copy[name] = value
    return copy


_FORMAT = ("group_size", "bits", "mode", "biases", "global_scale", "_no_grad")
"""The attributes of a quantised module that a dense module does not have."""

_DENSE: dict[type, type[mlx_nn.Module]] = {
    mlx_nn.QuantizedLinear: mlx_nn.Linear,
    mlx_nn.QuantizedEmbedding: mlx_nn.Embedding,
}


def _dense_class(kind: type) -> type[mlx_nn.Module]:
    """Return the class whose quantised form is `kind`."""
    for quantized, dense in _DENSE.items():
        if issubclass(kind, quantized):
            return dense
    name = kind.__name__.removeprefix("Quantized")
    found: type[mlx_nn.Module] | None = getattr(sys.modules[kind.__module__], name, None)
    if found is None:
        raise TypeError(f"{kind.__name__} has no dense class {name} in its module: merge with dequantize=False")
    return found
