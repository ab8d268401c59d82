"""The matrix of a linear layer or table: kept as it is, or quantised, or with an adapter."""

from __future__ import annotations

from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._types import Array

__all__ = ["dense_weight", "is_adapter", "is_quantized", "quantized_again"]


def is_quantized(module: mlx_nn.Module) -> bool:
    """Tell whether a module keeps its weight as packed integers with scales.

    >>> is_quantized(mlx_nn.QuantizedLinear(64, 4)), is_quantized(mlx_nn.Linear(64, 4))
    (True, False)
    """
    return "scales" in module and "weight" in module and hasattr(module, "bits")


def is_adapter(module: mlx_nn.Module) -> bool:
    """Tell whether a module is an adapter of low rank, as mlx-lm has them.

    >>> is_adapter(mlx_nn.Linear(4, 4))
    False
    """
    return "lora_a" in module and "lora_b" in module


def dense_weight(module: mlx_nn.Module) -> Array:
    """Return the weight of a module, dequantised where it is quantised.

    >>> dense_weight(mlx_nn.QuantizedLinear(64, 4)).shape
    (4, 64)
    """
    weight: Array = module["weight"]
    if not is_quantized(module):
        return weight
    format = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    scale = module.get("global_scale")
    if scale is None:
        return mx.dequantize(weight, module["scales"], module.get("biases"), **format)
    experts = zip(weight, module["scales"], scale, strict=True)  # each expert has a scale of its own
    return mx.stack([mx.dequantize(w, s, global_scale=each, **format) for w, s, each in experts])


def quantized_again(weight: Array, module: mlx_nn.Module) -> dict[str, Array]:
    """Quantise a matrix in the format of a quantised module; return the arrays by the names that the module uses."""
    format: dict[str, Any] = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    if module.get("global_scale") is None:
        return dict(zip(("weight", "scales", "biases"), mx.quantize(weight, **format), strict=False))
    largest = mx.max(mx.abs(weight), axis=(-2, -1)).astype(mx.float32)
    experts = [mx.quantize(w, global_scale=each, **format) for w, each in zip(weight, largest, strict=True)]
    packed, scales = (mx.stack(list(arrays)) for arrays in zip(*experts, strict=True))
    return {"weight": packed, "scales": scales, "global_scale": largest}
