"""The metrics of labels that are 0 or 1, and of confusions between classes."""

from __future__ import annotations

from ..core._mlx import mx
from ..core._options import FLAG, check_options, number
from ..core._types import Array, Tree
from ._classes import check_classes, hits
from ._columns import Columns
from ._folds import Metric
from ._labels import as_column, as_targets, check_ignore, kept, labels_of, predicted
from ._running import added, as_figure, check_count, metric, nothing, or_unknown
from ._running import number as number_of

__all__ = ["auroc", "binary_accuracy", "confusion", "multilabel_accuracy"]

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
    """Say for which share of labels, 0 or 1, the output is on their side of a threshold; 1 is above it.

    Outputs are `(n, …)`, labels of their shape or `(n,)` for outputs `(n, 1)`, of any type. A label that counts and is
    neither 0 nor 1 makes it NaN. Other options as in `accuracy`.

    Args:
        name: its name in rows and reports.
        threshold: 0 for logits; 0.5 for probabilities.
        ignore: a label that does not count.
        output: as in `accuracy`.
        target: as in `accuracy`.
        mask: as in `accuracy`.

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
    """Say for which share of the labels, 0 or 1, the output, `(n, …, labels)`, is on their side of a threshold.

    It is 1 - the Hamming loss. With `exact` it is the share of rows of which all labels that count are right, which is
    scikit-learn's `accuracy_score`. Other options as in `binary_accuracy`.

    >>> m, y = multilabel_accuracy(exact=True), mx.array([[1, 0], [1, 1]])
    >>> m.value(m.update(m.init(), mx.array([[2.0, -1.0], [3.0, -2.0]]), x=None, y=y)).item()
    0.5
    """
    check_ignore(ignore)
    check_options(name, {"threshold": threshold, "exact": exact}, {"threshold": number(), "exact": FLAG})

    def measure(scores: Array, y: Array, mask: Array | None) -> Tree:
        right, counts, sound = _sides(name, scores, y, mask, ignore, threshold)
        if exact:
            right, counts = mx.all(right | ~counts, axis=-1), mx.any(counts, axis=-1)
        return {"hits": or_unknown(sound, number_of(right & counts)), "count": number_of(counts)}

    return hits(name, Columns(output, target, mask), measure)


def auroc(
    name: str = "auroc",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Compute the area under the ROC curve of outputs for labels that are 0 or 1, a tie counting half.

    It is binned: an output counts by the 16 upper bits of its float32, so that those within 0.8 % of one another may be
    ties, and bfloat16 outputs are exact. So give it logits, not probabilities, which crowd below 1. Its memory is 1 MB,
    whatever the data. NaN where either label is missing. Shapes and other options as in `binary_accuracy`.

    >>> m = auroc()
    >>> m.value(m.update(m.init(), mx.array([0.1, 0.4, 0.35, 0.8]), x=None, y=mx.array([0, 0, 1, 1]))).item()
    0.75
    """
    check_ignore(ignore)
    sides = ("negative", "positive")

    def measure(scores: Array, y: Array, mask: Array | None) -> Tree:
        targets = as_targets(scores, y, name).reshape(-1)
        _, counts, sound = _sides(name, scores, y, mask, ignore, 0.0)
        flat = counts.reshape(-1)
        bins = _bins(scores.reshape(-1))
        sound = sound & ~mx.any(mx.isnan(scores) & counts)
        found = {
            side: mx.zeros((_BINS,), mx.int32).at[bins].add((flat & (targets == label)).astype(mx.int32))
            for label, side in enumerate(sides)
        }
        return {side: or_unknown(sound, nothing() + one.astype(mx.uint64)) for side, one in found.items()}

    def value(memory: Tree) -> Array:
        negative, positive = (memory[side] for side in sides)
        below = (mx.cumsum(negative) - negative).astype(mx.float32) + 0.5 * negative.astype(mx.float32)
        wins = (as_figure(positive) * (below / mx.maximum(negative.sum(), 1))).sum() / mx.maximum(positive.sum(), 1)
        known = as_figure(negative).sum() * as_figure(positive).sum()
        return mx.where(known > 0, wins, mx.nan)

    def init() -> Tree:
        return {side: nothing(_BINS) for side in sides}

    return metric(name, Columns(output, target, mask), init=init, measure=measure, merge=added, value=value, mode="max")


def confusion(
    classes: int,
    name: str = "confusion",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Count how often a class, a row, was predicted as each class, a column: a table `(classes, classes)`.

    Logits that are NaN predict no class. A report shows the table of the last epoch below its rows; a monitor cannot
    watch it. Options as in `precision`.

    >>> m = confusion(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.2, 0.8]]), x=None, y=mx.array([1, 0]))).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    check_count(f"{name} takes the number of classes", classes, 2)
    check_ignore(ignore)

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        labels, counts, sound = labels_of(logits, y, mask, ignore)
        check_classes(name, classes, logits)
        best, known = predicted(logits)
        counts = known if counts is None else known & counts
        each = mx.arange(classes)
        rows = ((labels[..., None] == each) & counts[..., None]).reshape(-1, classes).astype(mx.float32)
        columns = (best[..., None] == each).reshape(-1, classes).astype(mx.float32)
        return {"pairs": or_unknown(sound, (rows.T @ columns).astype(mx.uint64))}

    return metric(
        name,
        Columns(output, target, mask),
        init=lambda: {"pairs": nothing(classes, classes)},
        measure=measure,
        merge=added,
        value=lambda memory: as_figure(memory["pairs"]),
        mode="max",
    )


def _sides(
    name: str, scores: Array, y: Array, mask: Array | None, ignore: int | None, threshold: float
) -> tuple[Array, Array, Array]:
    """Return which outputs are on the side of their label, which labels count, and whether these are all 0 or 1."""
    targets = as_targets(scores, y, name)
    counts = kept(targets, None if mask is None else as_column(scores, mask), ignore)
    counts = mx.ones(targets.shape, mx.bool_) if counts is None else counts
    sound = mx.all((targets == 0) | (targets == 1) | ~counts)
    right = mx.where(targets == 1, scores > threshold, scores <= threshold)
    return right, counts, sound


def _bins(scores: Array) -> Array:
    """Return the upper 16 bits of float32 numbers as ints that rise with them; -0 is 0."""
    bits = (scores.astype(mx.float32) + 0.0).view(mx.int32) >> 16
    return mx.where(bits < 0, -32768 - bits, bits + 0) + 32768
