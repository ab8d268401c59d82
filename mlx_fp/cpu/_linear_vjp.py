"""The dense product, with a weight gradient in the weight's own layout.

MLX's derivative of `x @ w.T` is a transposed view. For a transposed view the compiled update of the optimiser takes
its slow, strided path. Here the gradient is computed as `(out, in)` directly: the same sums in fewer operations.
"""

from __future__ import annotations

from ..core._exporting import custom_function
from ..core._mlx import mlx_nn, mx
from ..core._types import Array

__all__ = ["Linear"]


def _dense_backward(primals: tuple[Array, Array], ct: Array, _: Array) -> tuple[Array, Array]:
    x, weight = primals
    return (ct @ weight).astype(x.dtype), (_rows(ct).T @ _rows(x)).astype(weight.dtype)


def _dense_bias_backward(primals: tuple[Array, Array, Array], ct: Array, _: Array) -> tuple[Array, Array, Array]:
    x, weight, bias = primals
    rows = _rows(ct)
    return (
        (ct @ weight).astype(x.dtype),
        (rows.T @ _rows(x)).astype(weight.dtype),
        rows.sum(axis=0).astype(bias.dtype),
    )


_dense = custom_function(lambda x, weight: x @ weight.T, _dense_backward)
"""The function `x @ weight.T`: `(…, in), (out, in) -> (…, out)`."""

_dense_bias = custom_function(lambda x, weight, bias: mx.addmm(bias, x, weight.T), _dense_bias_backward)
"""The function `x @ weight.T + bias`: `(…, in), (out, in), (out,) -> (…, out)`."""


class Linear(mlx_nn.Linear):
    """The substitute of `mlx.nn.Linear` in a lifted layer, alone or inside a module."""

    def __call__(self, x: Array) -> Array:
        """Map `(…, in) -> (…, out)`."""
        product: Array = _dense_bias(x, self["weight"], self["bias"]) if "bias" in self else _dense(x, self["weight"])
        return product


def _rows(x: Array) -> Array:
    """Merge all leading axes: `(…, n) -> (rows, n)`."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
