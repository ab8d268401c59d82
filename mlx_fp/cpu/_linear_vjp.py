"""The dense product, with a weight gradient that comes out in the weight's own layout.

MLX's derivative of `x @ w.T` is a transposed view, on which the compiled update of the optimiser takes its slow,
strided path. Here it is computed as `(out, in)` from the start: the same sums, fewer operations.
"""

from __future__ import annotations

import mlx.nn as mlx_nn

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["Linear", "dense", "dense_bias"]


@mx.custom_function
def dense(x: Array, weight: Array) -> Array:
    """Return `x @ weight.T`: `(…, in), (out, in) -> (…, out)`."""
    return x @ weight.T


@dense.vjp
def _dense_vjp(primals: tuple[Array, Array], ct: Array, _: Array) -> tuple[Array, Array]:
    x, weight = primals
    return (ct @ weight).astype(x.dtype), (_rows(ct).T @ _rows(x)).astype(weight.dtype)


@mx.custom_function
def dense_bias(x: Array, weight: Array, bias: Array) -> Array:
    """Return `x @ weight.T + bias`: `(…, in), (out, in), (out,) -> (…, out)`."""
    return mx.addmm(bias, x, weight.T)


@dense_bias.vjp
def _dense_bias_vjp(primals: tuple[Array, Array, Array], ct: Array, _: Array) -> tuple[Array, Array, Array]:
    x, weight, bias = primals
    rows = _rows(ct)
    return (
        (ct @ weight).astype(x.dtype),
        (rows.T @ _rows(x)).astype(weight.dtype),
        rows.sum(axis=0).astype(bias.dtype),
    )


class Linear(mlx_nn.Linear):
    """mlx.nn's Linear, run by `dense`; what a lifted Linear, alone or inside a module, computes with."""

    def __call__(self, x: Array) -> Array:
        """Map `(…, in) -> (…, out)`."""
        if "bias" in self:
            return dense_bias(x, self["weight"], self["bias"])  # type: ignore[return-value]
        return dense(x, self["weight"])  # type: ignore[return-value]


def _rows(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
