"""Softmax, attention and cross entropy from plain operations, for which a compiled function builds kernels.

MLX's own primitives for them are compiled with MLX, for the oldest processor of the architecture. With native kernels,
the compositions here are several times faster. Cross entropy is faster with stock kernels, too: its derivative reuses
the exponentials, and the derivative of MLX's own computes them again. The numbers are the same to rounding;
those of cross entropy keep their digits for large scores, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core._entropy import class_entropy
from ..core._mlx import mlx_nn, mx
from ..core._types import Array

__all__ = ["MultiHeadAttention", "attention", "cross_entropy", "softmax"]

_REDUCTIONS: dict[str, Callable[[Array], Array]] = {"none": lambda loss: loss, "mean": mx.mean, "sum": mx.sum}


def softmax(x: Array, axis: int = -1) -> Array:
    """Compute `mx.softmax` along one axis; the shape stays the same.

    >>> softmax(mx.array([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    powers = mx.exp(x - mx.stop_gradient(x.max(axis=axis, keepdims=True)))
    return powers / powers.sum(axis=axis, keepdims=True)


def cross_entropy(
    logits: Array,
    targets: Array,
    weights: Array | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> Array:
    """Compute the cross entropy loss: `(…, classes), (…) -> (…)`, or a scalar with reduction "mean" or "sum".

    The arguments are those of `mlx.nn.losses.cross_entropy`. Only the common case is computed here: labels as integers,
    float32 logits, no weights and no smoothing. Its gradient takes half of the time of MLX's. MLX computes all others.

    >>> round(cross_entropy(mx.array([[0.0, 0.0]]), mx.array([1])).item(), 4)
    0.6931
    """
    is_common = weights is None and not label_smoothing and reduction in _REDUCTIONS and logits.dtype == mx.float32
    shape = list(logits.shape)
    del shape[axis]
    if not (is_common and list(targets.shape) == shape):
        return mlx_nn.losses.cross_entropy(logits, targets, weights, axis, label_smoothing, reduction)  # type: ignore[arg-type]  # MLX checks `reduction`
    return _REDUCTIONS[reduction](class_entropy(logits, targets, axis))


def attention(q: Array, k: Array, v: Array, *, scale: float, mask: Array | None = None) -> Array:
    """Compute `softmax(scale q k^T + mask) v`: `(…, n, d), (…, m, d), (…, m, e) -> (…, n, e)`.

    The mask is added to the scores. For example, a causal mask is 0 up to the diagonal and minus infinity above it.
    See Vaswani et al., Attention is all you need, https://arxiv.org/abs/1706.03762.

    >>> attention(mx.zeros((1, 2)), mx.zeros((2, 2)), mx.array([[1.0], [3.0]]), scale=1.0).tolist()
    [[2.0]]
    """
    scores = (q * scale) @ k.swapaxes(-1, -2)
    return softmax(scores if mask is None else scores + mask) @ v


class MultiHeadAttention(mlx_nn.MultiHeadAttention):
    """The substitute of `mlx.nn.MultiHeadAttention`, which computes with `attention`."""

    def __call__(self, queries: Array, keys: Array, values: Array, mask: Any = None) -> Any:
        """Map `(n, length, d), (n, memory, d), (n, memory, d) -> (n, length, out)`."""
        if mask is not None and (isinstance(mask, str) or mask.dtype == mx.bool_):
            return super().__call__(queries, keys, values, mask)  # type: ignore[no-untyped-call]  # MLX's has no types

        def heads(x: Array) -> Array:
            return x.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)

        q, k, v = (
            heads(project(x))
            for project, x in ((self.query_proj, queries), (self.key_proj, keys), (self.value_proj, values))
        )
        mixed = attention(q, k, v, scale=math.sqrt(1 / q.shape[-1]), mask=mask)
        return self.out_proj(mixed.swapaxes(1, 2).flatten(-2, -1))
