"""The losses of mlx.nn: pure functions of arrays.

Mind the default `reduction`: "mean" for `binary_cross_entropy`, `gaussian_nll_loss`, `l1_loss`, `mse_loss` and
`smooth_l1_loss`, "none" for the others.
"""

from __future__ import annotations

from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._types import Array
from ..core.backend import in_use
from ._bounds import within_bounds

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

binary_cross_entropy = mlx_nn.losses.binary_cross_entropy
cosine_similarity_loss = mlx_nn.losses.cosine_similarity_loss
gaussian_nll_loss = mlx_nn.losses.gaussian_nll_loss
hinge_loss = mlx_nn.losses.hinge_loss
huber_loss = mlx_nn.losses.huber_loss
kl_div_loss = mlx_nn.losses.kl_div_loss
l1_loss = mlx_nn.losses.l1_loss
log_cosh_loss = mlx_nn.losses.log_cosh_loss
margin_ranking_loss = mlx_nn.losses.margin_ranking_loss
mse_loss = mlx_nn.losses.mse_loss
smooth_l1_loss = mlx_nn.losses.smooth_l1_loss
triplet_loss = mlx_nn.losses.triplet_loss


def cross_entropy(
    logits: Array,
    targets: Array,
    weights: Array | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> Array:
    """Compute the cross entropy loss: `(…, classes), (…) -> (…)`, or a scalar with reduction "mean" or "sum".

    It is `mlx.nn.losses.cross_entropy`, or the substitute that the backend in use has for it. The loss of an integer
    target that is not from 0 to classes - 1 is NaN, unless its weight is 0: MLX would read and write out of bounds.

    >>> round(cross_entropy(mx.array([[0.0, 0.0]]), mx.array([1])).item(), 4)
    0.6931
    >>> cross_entropy(mx.zeros((2, 3)), mx.array([0, 3]), weights=mx.array([1.0, 0.0])).tolist()[1]
    0.0
    """
    options = (weights, axis, label_smoothing, reduction)
    if targets.ndim == logits.ndim:
        return sound_cross_entropy(logits, targets, *options)
    safe, sound = _as_classes(logits, targets, axis)
    sound = sound if weights is None else sound | (weights == 0)
    return _poisoned(sound_cross_entropy(logits, safe, *options), sound, reduction)


def sound_cross_entropy(logits: Array, targets: Array, *options: Any) -> Array:
    """Compute the cross entropy of targets that are known to be classes, or probabilities.

    >>> round(sound_cross_entropy(mx.array([[0.0, 0.0]]), mx.array([1])).item(), 4)
    0.6931
    """
    stock = mlx_nn.losses.cross_entropy
    result: Array = in_use().substitutes.get(stock, stock)(logits, targets, *options)
    return result


def nll_loss(inputs: Array, targets: Array, axis: int = -1, reduction: str = "none") -> Array:
    """Compute the negative log likelihood of integer targets: log probabilities `(…, classes)`, targets `(…)`.

    It is `mlx.nn.losses.nll_loss`. The loss of a target that is not from 0 to classes - 1 is NaN.

    >>> nll_loss(mx.log(mx.array([[0.5, 0.5]])), mx.array([2])).item()
    nan
    """
    safe, sound = _as_classes(inputs, targets, axis)
    return _poisoned(mlx_nn.losses.nll_loss(inputs, safe, axis, reduction), sound, reduction)  # type: ignore[arg-type]


def _as_classes(logits: Array, targets: Array, axis: int) -> tuple[Array, Array]:
    """Return targets that are classes, and which of them were; TypeError for targets that are no integers."""
    if not mx.issubdtype(targets.dtype, mx.integer) and targets.dtype != mx.bool_:
        raise TypeError(
            f"targets {targets.shape} of logits {logits.shape} are classes, integers; they are {targets.dtype}"
        )
    return within_bounds(targets, logits.shape[axis])


def _poisoned(loss: Array, sound: Array, reduction: str) -> Array:
    """Make the loss NaN, with a gradient of 0, where it is not sound; one that was reduced, where any is not."""
    sound = sound if reduction == "none" else mx.all(sound)
    return mx.where(sound, loss, mx.array(mx.nan, loss.dtype))
