"""Metrics of labels that are 0 or 1."""

from __future__ import annotations

from ..core._mlx import mx
from ..core._options import FLAG, check_options, number
from ..core._types import Array, Tree
from ._classes import share_metric
from ._columns import Columns
from ._folds import Metric
from ._labels import as_column, as_targets, check_ignore, counting
from ._running import add_counters, as_float, count_true, make_metric, unknown_unless, zero_counters

__all__ = ["auroc", "binary_accuracy", "multilabel_accuracy"]

_BINS = 1 << 16


def binary_accuracy(
    name: str = "binary_accuracy",
    *,
    threshold: float = 0.0,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the share of labels, 0 or 1, that the output predicts: 1 above a threshold, else 0.

    Outputs are `(n, …)`. Labels have the same shape, or `(n,)` for outputs `(n, 1)`. They may have any type. A label
    that counts and is neither 0 nor 1 makes the metric NaN.

    Args:
        name: The name of the metric in rows and reports.
        threshold: The score above which an output predicts 1: 0 for logits, 0.5 for probabilities.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    >>> m = binary_accuracy()
    >>> m.value(m.update(m.init(), mx.array([[2.0], [-1.0]]), x=None, y=mx.array([1, 1]))).item()
    0.5
    """
    return multilabel_accuracy(name, threshold=threshold, ignore=ignore, output=output, target=target, mask=mask)


def multilabel_accuracy(
    name: str = "multilabel_accuracy",
    *,
    exact: bool = False,
    threshold: float = 0.0,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the share of labels, 0 or 1, that the outputs `(n, …, labels)` predict.

    This is 1 - the Hamming loss. With `exact` it is the share of rows in which every label that counts is correct, as
    scikit-learn's `accuracy_score` for multilabel data.

    Args:
        name: The name of the metric in rows and reports.
        exact: Whether a row counts as a whole.
        threshold: The score above which an output predicts 1: 0 for logits, 0.5 for probabilities.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    >>> m, y = multilabel_accuracy(exact=True), mx.array([[1, 0], [1, 1]])
    >>> m.value(m.update(m.init(), mx.array([[2.0, -1.0], [3.0, -2.0]]), x=None, y=y)).item()
    0.5
    """
    check_ignore(ignore)
    check_options(name, {"threshold": threshold, "exact": exact}, {"threshold": number(), "exact": FLAG})

    def measure(scores: Array, y: Array, mask: Array | None) -> Tree:
        correct, counts, sound = _correct(name, scores, y, mask, ignore, threshold)
        if exact:
            correct, counts = mx.all(correct | ~counts, axis=-1), mx.any(counts, axis=-1)
        return {"hits": unknown_unless(sound, count_true(correct & counts)), "count": count_true(counts)}

    return share_metric(name, Columns(output, target, mask), measure)


def auroc(
    name: str = "auroc",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the area under the ROC curve for labels that are 0 or 1. A tie counts half.

    The outputs are binned by the 16 upper bits of their float32. Outputs within 0.8 % of one another may therefore be
    ties; bfloat16 outputs are exact. Give it logits: probabilities crowd below 1 and become ties. The memory is 1 MB
    for any number of rows. The value is NaN where either label is missing. Shapes are those of `binary_accuracy`.

    Args:
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    >>> m = auroc()
    >>> m.value(m.update(m.init(), mx.array([0.1, 0.4, 0.35, 0.8]), x=None, y=mx.array([0, 0, 1, 1]))).item()
    0.75
    """
    check_ignore(ignore)
    sides = ("negative", "positive")

    def measure(scores: Array, y: Array, mask: Array | None) -> Tree:
        targets = as_targets(scores, y, name).reshape(-1)
        _, counts, sound = _correct(name, scores, y, mask, ignore, 0.0)
        flat_counts, bins = counts.reshape(-1), _bins(scores.reshape(-1))
        sound = sound & ~mx.any(mx.isnan(scores) & counts)
        histograms = {
            side: mx.zeros((_BINS,), mx.int32).at[bins].add((flat_counts & (targets == label)).astype(mx.int32))
            for label, side in enumerate(sides)
        }
        return {side: unknown_unless(sound, zero_counters() + h.astype(mx.uint64)) for side, h in histograms.items()}

    def value(memory: Tree) -> Array:
        negative, positive = (memory[side] for side in sides)
        below = (mx.cumsum(negative) - negative).astype(mx.float32) + 0.5 * negative.astype(mx.float32)
        wins = (as_float(positive) * (below / mx.maximum(negative.sum(), 1))).sum() / mx.maximum(positive.sum(), 1)
        pairs = as_float(negative).sum() * as_float(positive).sum()
        return mx.where(pairs > 0, wins, mx.nan)

    def init() -> Tree:
        return {side: zero_counters(_BINS) for side in sides}

    columns = Columns(output, target, mask)
    return make_metric(name, columns, init=init, measure=measure, merge=add_counters, value=value, mode="max")


def _correct(
    name: str, scores: Array, y: Array, mask: Array | None, ignore: int | None, threshold: float
) -> tuple[Array, Array, Array]:
    """Return whether each label is predicted, whether it counts, and whether all labels that count are 0 or 1."""
    targets = as_targets(scores, y, name)
    counts = counting(targets, None if mask is None else as_column(scores, mask), ignore)
    counts = mx.ones(targets.shape, mx.bool_) if counts is None else counts
    sound = mx.all((targets == 0) | (targets == 1) | ~counts)
    correct = mx.where(targets == 1, scores > threshold, scores <= threshold)
    return correct, counts, sound


def _bins(scores: Array) -> Array:
    """Return the upper 16 bits of float32 numbers as ints in the same order; -0 has the bin of 0."""
    bits = (scores.astype(mx.float32) + 0.0).view(mx.int32) >> 16
    return mx.where(bits < 0, -32768 - bits, bits + 0) + 32768
