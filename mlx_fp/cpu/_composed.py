"""Softmax, attention and cross entropy, composed of plain operations, which a compiled function builds kernels for.

MLX's own primitives for them are compiled with it, for the oldest processor. Where kernels are built for the processor
at hand, `native`, these are several times faster. Cross entropy gains without native kernels, too: its derivative
reuses the exponentials that MLX's computes again. The numbers are the same to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._types import Array

__all__ = ["MultiHeadAttention", "attention", "cross_entropy", "logsumexp", "softmax"]

_REDUCTIONS: dict[str, Callable[[Array], Array]] = {"none": lambda loss: loss, "mean": mx.mean, "sum": mx.sum}


def softmax(x: Array, axis: int = -1) -> Array:
    """Return what `mx.softmax` does along one axis.

    >>> softmax(mx.array([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    powers = mx.exp(x - mx.stop_gradient(x.max(axis=axis, keepdims=True)))
    return powers / powers.sum(axis=axis, keepdims=True)


def logsumexp(x: Array, axis: int = -1) -> Array:
    """Return what `mx.logsumexp` does along one axis.

    >>> round(logsumexp(mx.array([0.0, 0.0])).item(), 4)
    0.6931
    """
    most = mx.stop_gradient(x.max(axis=axis, keepdims=True))
    return mx.log(mx.exp(x - most).sum(axis=axis)) + most.squeeze(axis)


def cross_entropy(
    logits: Array,
    targets: Array,
    weights: Array | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> Array:
    """Compute the cross entropy loss: `(…, classes), (…) -> (…)`, or a scalar with reduction "mean" or "sum".

    As `mlx.nn.losses.cross_entropy`, which computes all but the common case: labels as integers, float32 logits, no
    weights and no smoothing. The gradient of that case takes half of the time here.

    >>> round(cross_entropy(mx.array([[0.0, 0.0]]), mx.array([1])).item(), 4)
    0.6931
    """
    common = weights is None and not label_smoothing and reduction in _REDUCTIONS and logits.dtype == mx.float32
    places = list(logits.shape)
    del places[axis]
    if not (common and list(targets.shape) == places):
        return mlx_nn.losses.cross_entropy(logits, targets, weights, axis, label_smoothing, reduction)  # type: ignore
    score = mx.take_along_axis(logits, mx.expand_dims(targets, axis), axis).squeeze(axis)
    return _REDUCTIONS[reduction](logsumexp(logits, axis) - score)


def attention(q: Array, k: Array, v: Array, *, scale: float, mask: Array | None = None) -> Array:
    """Compute `softmax(scale q k^T + mask) v`: `(…, n, d), (…, m, d), (…, m, e) -> (…, n, e)`; the mask is added.

    See Vaswani et al., Attention is all you need, https://arxiv.org/abs/1706.03762.

    >>> attention(mx.zeros((1, 2)), mx.zeros((2, 2)), mx.array([[1.0], [3.0]]), scale=1.0).tolist()
    [[2.0]]
    """
    scores = (q * scale) @ k.swapaxes(-1, -2)
    return softmax(scores if mask is None else scores + mask) @ v


class MultiHeadAttention(mlx_nn.MultiHeadAttention):
    """mlx.nn's attention, run by `attention`."""

    def __call__(self, queries: Array, keys: Array, values: Array, mask: Any = None) -> Any:
        """Map `(n, length, d), (n, memory, d), (n, memory, d) -> (n, length, out)`."""
        if mask is not None and (isinstance(mask, str) or mask.dtype == mx.bool_):
            return super().__call__(queries, keys, values, mask)  # type: ignore[no-untyped-call]

        def heads(x: Array) -> Array:
            return x.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)

        q, k, v = (
            heads(project(x))
            for project, x in ((self.query_proj, queries), (self.key_proj, keys), (self.value_proj, values))
        )
        mixed = attention(q, k, v, scale=math.sqrt(1 / q.shape[-1]), mask=mask)
        return self.out_proj(mixed.swapaxes(1, 2).flatten(-2, -1))
