"""The losses of mlx.nn: pure functions of arrays.

Mind the default `reduction`: "mean" for `binary_cross_entropy`, `gaussian_nll_loss`, `l1_loss`, `mse_loss` and
`smooth_l1_loss`, "none" for the others.
"""

from __future__ import annotations

from typing import Any

from mlx.nn import losses as _mlx_losses
from mlx.nn.losses import (
    binary_cross_entropy,
    cosine_similarity_loss,
    gaussian_nll_loss,
    hinge_loss,
    huber_loss,
    kl_div_loss,
    l1_loss,
    log_cosh_loss,
    margin_ranking_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
    triplet_loss,
)

from ..core._types import Array
from ..core.backend import in_use

__all__ = [
    "binary_cross_entropy",
    "cosine_similarity_loss",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_loss",
    "huber_loss",
    "kl_div_loss",
    "l1_loss",
    "log_cosh_loss",
    "margin_ranking_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
    "triplet_loss",
]


def cross_entropy(
    logits: Array,
    targets: Array,
    weights: Array | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> Array:
    """Compute the cross entropy loss: `(…, classes), (…) -> (…)`, or a scalar with reduction "mean" or "sum".

    It is `mlx.nn.losses.cross_entropy`, or the substitute that the backend in use has for it.

    >>> round(cross_entropy(mx.array([[0.0, 0.0]]), mx.array([1])).item(), 4)
    0.6931
    """
    stock = _mlx_losses.cross_entropy
    compute: Any = in_use().substitutes.get(stock, stock)
    result: Array = compute(logits, targets, weights, axis, label_smoothing, reduction)
    return result
