"""Cross entropy of `hidden @ weight.T` without the whole logits."""

from __future__ import annotations

from collections.abc import Sequence

from ..core._mlx import mx
from ..core._options import FLAG, Rule, check_options, count, number, optional
from ..core._types import Array
from ._bounds import within_bounds
from ._chunked_head import Head, HeadArrays, row_losses, total_loss

__all__ = ["CHUNK_BYTES", "linear_cross_entropy"]

CHUNK_BYTES = 16 << 20
"""The bytes of float32 logits of a chunk by default."""

_RULES = {
    "chunk": optional(count(1)),
    "ignore": optional(Rule("a label, an int", lambda value: isinstance(value, int) and not isinstance(value, bool))),
    "label_smoothing": number(0, 1),
    "soft_cap": optional(number(above=0)),
    "scale": number(),
    "frozen": FLAG,
    "reduction": Rule('"none", "mean" or "sum"', lambda value: value in ("none", "mean", "sum")),
}


def linear_cross_entropy(
    hidden: Array,
    weight: Array | Sequence[Array],
    labels: Array,
    *,
    bias: Array | None = None,
    chunk: int | None = None,
    weights: Array | None = None,
    ignore: int | None = None,
    label_smoothing: float = 0.0,
    soft_cap: float | None = None,
    scale: float = 1.0,
    reduction: str = "none",
    frozen: bool = False,
    group_size: int | None = None,
    bits: int | None = None,
    mode: str = "affine",
) -> Array:
    """Compute the cross entropy of `logits = hidden @ weight.T + bias` without the whole logits.

    `(…, d), (classes, d), (…) -> (…)`. The logits of `chunk` rows exist at once. The scores are
    `soft_cap * tanh(scale * logits / soft_cap)`, or `scale * logits` without a cap. The sums over classes and the
    gradient of the weight are added up in float32 for every dtype. A label out of range gives NaN and no gradient.

    With reduction "mean" or "sum", each chunk computes its gradients together with its losses: three products with the
    weight. With "none", the gradients need the logits again: four products. A loss without a gradient, for example in
    evaluation, costs one product with "none" only.

    The function has a first derivative only, and refuses `mx.vmap`. See Hsu et al., Liger Kernel,
    https://arxiv.org/abs/2410.10989, and Wijmans et al., Cut Your Losses, https://arxiv.org/abs/2411.09009.

    Args:
        hidden: The inputs of the head, `(…, d)`.
        weight: The weight of the head, `(classes, d)`; or the arrays `(weight, scales)` or `(weight, scales, biases)`
            of a quantised weight, see `mx.quantize`. A quantised weight gets no gradient.
        labels: Classes from 0 to classes - 1, int `(…)`.
        bias: The bias of the head, `(classes,)`; none by default.
        chunk: The number of rows at once. By default the float32 logits of a chunk have at most 16 MiB.
        weights: A weight for each label; by default 1.
        ignore: A label that does not count: its loss is 0, and "mean" leaves it out.
        label_smoothing: From 0 to 1; 0, the default, is none.
        soft_cap: The largest absolute value of a score; none by default.
        scale: A factor of the logits.
        reduction: "none" returns a loss for each label, "mean" or "sum" a scalar. As in `cross_entropy`, "mean" divides
            by the number of labels, whatever their weights.
        frozen: Whether weight and bias get no gradient, which saves one product and the memory of the gradient.
        group_size: For a quantised weight, the elements that share a scale; MLX's default for the mode.
        bits: For a quantised weight, the bits of an element; MLX's default for the mode.
        mode: For a quantised weight, the mode of MLX.

    Returns:
        The loss, float32.

    Raises:
        ValueError: The shapes do not match, or an option has an unknown value.
        TypeError: The labels are not integers.
        NotImplementedError: A second derivative, or `mx.vmap`.

    >>> hidden, weight, labels = mx.ones((2, 3)), mx.zeros((4, 3)), mx.array([1, 7])
    >>> [round(loss, 4) for loss in linear_cross_entropy(hidden, weight, labels).tolist()]
    [1.3863, nan]
    """
    check_options(
        "linear_cross_entropy",
        {
            "chunk": chunk,
            "ignore": ignore,
            "label_smoothing": label_smoothing,
            "soft_cap": soft_cap,
            "scale": scale,
            "reduction": reduction,
            "frozen": frozen,
        },
        _RULES,
    )
    head = _arrays(hidden, weight, bias)
    classes = head.weight.shape[0]
    _check_labels(hidden, labels, weights)
    options = Head(
        chunk or max(1, CHUNK_BYTES // (4 * classes)),
        frozen or head.scales is not None,
        label_smoothing,
        soft_cap,
        scale,
        (group_size, bits, mode),
    )
    return _reduced(options, hidden, labels, head, weights, ignore, reduction)


def _reduced(
    options: Head,
    hidden: Array,
    labels: Array,
    head: HeadArrays,
    weights: Array | None,
    ignore: int | None,
    reduction: str,
) -> Array:
    """Compute the loss of labels that may be out of range or ignored."""
    safe, in_range = within_bounds(labels, head.weight.shape[0])
    counts = mx.ones_like(in_range) if ignore is None else labels != ignore
    factors = (counts & in_range).astype(mx.float32)
    factors = factors if weights is None else factors * weights.astype(mx.float32)
    valid = in_range | ~counts if weights is None else in_range | ~counts | (weights == 0)
    rows, classes = hidden.reshape(-1, hidden.shape[-1]), safe.reshape(-1)
    if reduction == "none":
        loss = row_losses(options, rows, classes, head).reshape(labels.shape)
        return mx.where(valid, loss * factors, mx.nan)
    total = total_loss(options, rows, classes, factors.reshape(-1), head)
    total = mx.where(mx.all(valid), total, mx.nan)
    return total if reduction == "sum" else total / counts.sum()


def _arrays(hidden: Array, weight: Array | Sequence[Array], bias: Array | None) -> HeadArrays:
    """Return the arrays of a head; raise ValueError for shapes that do not match."""
    quantised = isinstance(weight, (list, tuple))
    if quantised and len(weight) not in (2, 3):
        raise ValueError(
            f"a quantised weight is (weight, scales) or (weight, scales, biases); got {len(weight)} arrays"
        )
    matrix, scales, zeros = (*weight, None)[:3] if quantised else (weight, None, None)
    if hidden.ndim == 0 or matrix.ndim != 2 or not (quantised or hidden.shape[-1] == matrix.shape[-1]):
        raise ValueError(
            f"a head has a weight (classes, d) for hidden (…, d); hidden is {hidden.shape}, the weight {matrix.shape}"
        )
    if bias is not None and bias.shape != matrix.shape[:1]:
        raise ValueError(f"the bias of a weight {matrix.shape} is {matrix.shape[:1]}; it is {bias.shape}")
    return HeadArrays(matrix, scales, zeros, bias)


def _check_labels(hidden: Array, labels: Array, weights: Array | None) -> None:
    if not mx.issubdtype(labels.dtype, mx.integer):
        raise TypeError(
            f"labels {labels.shape} of hidden {hidden.shape} are classes, integers; they are {labels.dtype}"
        )
    if labels.shape != hidden.shape[:-1]:
        raise ValueError(f"labels of hidden {hidden.shape} are {hidden.shape[:-1]}; they are {labels.shape}")
    if weights is not None and weights.shape != labels.shape:
        raise ValueError(f"weights have a weight for each label, {labels.shape}; they are {weights.shape}")
