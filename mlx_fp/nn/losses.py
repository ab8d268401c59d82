"""The losses of mlx.nn, and `linear_cross_entropy`: pure functions of arrays.

The default `reduction` differs: it is "mean" for `binary_cross_entropy`, `gaussian_nll_loss`, `l1_loss`, `mse_loss` and
`smooth_l1_loss`, and "none" for the others. For example, `mse_loss(x, y)` is a scalar, but
`cross_entropy(logits, labels)` has one value for each label.
"""

from __future__ import annotations

from ..core._mlx import mlx_nn, mx
from ..core._types import Array
from ..core.backend import in_use
from ._bounds import within_bounds
from ._linear_cross_entropy import linear_cross_entropy

__all__ = [
    "binary_cross_entropy",
    "cosine_similarity_loss",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_loss",
    "huber_loss",
    "kl_div_loss",
    "l1_loss",
    "linear_cross_entropy",
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
    """Compute the cross entropy loss: `(…, classes), (…) -> (…)`.

    This is `mlx.nn.losses.cross_entropy`, or its substitute in the backend in use. A class index out of range gives
    NaN, unless its weight is 0; MLX itself would read and write out of bounds.

    Args:
        logits: Unnormalised log probabilities, with the classes along `axis`.
        targets: Class indices from 0 to classes - 1, or probabilities of the shape of `logits`.
        weights: A weight for each target; by default 1.
        axis: The axis of the classes; the last by default.
        label_smoothing: From 0 to 1; 0, the default, is none.
        reduction: "none" returns a loss for each target, "mean" or "sum" a scalar.

    Returns:
        The loss.

    Raises:
        TypeError: The targets are neither integers nor probabilities for each class.

    >>> round(cross_entropy(mx.array([[0.0, 0.0]]), mx.array([1])).item(), 4)
    0.6931
    >>> cross_entropy(mx.zeros((2, 3)), mx.array([0, 3]), weights=mx.array([1.0, 0.0])).tolist()[1]
    0.0
    """
    options = (weights, axis, label_smoothing, reduction)
    if targets.ndim == logits.ndim:
        return sound_cross_entropy(logits, targets, *options)
    safe, in_range = _as_classes(logits, targets, axis)
    valid = in_range if weights is None else in_range | (weights == 0)
    return _nan_unless(valid, sound_cross_entropy(logits, safe, *options), reduction)


def sound_cross_entropy(logits: Array, targets: Array, *options: object) -> Array:
    """Compute the cross entropy of targets that are already checked: classes in range, or probabilities.

    The options are those of `cross_entropy`, by position.

    >>> round(sound_cross_entropy(mx.array([[0.0, 0.0]]), mx.array([1])).item(), 4)
    0.6931
    """
    stock = mlx_nn.losses.cross_entropy
    result: Array = in_use().substitutes.get(stock, stock)(logits, targets, *options)
    return result


def nll_loss(inputs: Array, targets: Array, axis: int = -1, reduction: str = "none") -> Array:
    """Compute the negative log likelihood of class indices: `(…, classes), (…) -> (…)`.

    This is `mlx.nn.losses.nll_loss`. A class index out of range gives NaN.

    Args:
        inputs: Log probabilities, with the classes along `axis`.
        targets: Class indices from 0 to classes - 1.
        axis: The axis of the classes; the last by default.
        reduction: "none" returns a loss for each target, "mean" or "sum" a scalar.

    Returns:
        The loss.

    Raises:
        TypeError: The targets are not integers.

    >>> nll_loss(mx.log(mx.array([[0.5, 0.5]])), mx.array([2])).item()
    nan
    """
    safe, in_range = _as_classes(inputs, targets, axis)
    loss = mlx_nn.losses.nll_loss(inputs, safe, axis, reduction)  # type: ignore[arg-type]  # MLX checks the reduction
    return _nan_unless(in_range, loss, reduction)


def _as_classes(logits: Array, targets: Array, axis: int) -> tuple[Array, Array]:
    """Return class indices in range, and which of the given ones were in range; raise TypeError unless integers."""
    if not mx.issubdtype(targets.dtype, mx.integer) and targets.dtype != mx.bool_:
        raise TypeError(
            f"targets {targets.shape} of logits {logits.shape} are classes, integers; they are {targets.dtype}"
        )
    return within_bounds(targets, logits.shape[axis])


def _nan_unless(valid: Array, loss: Array, reduction: str) -> Array:
    """Make the loss NaN, with a gradient of 0, for targets that are not valid; a reduced loss, if any target is not."""
    valid = valid if reduction == "none" else mx.all(valid)
    return mx.where(valid, loss, mx.array(mx.nan, loss.dtype))
