"""The metrics of predicted classes and tokens."""

from __future__ import annotations

from collections.abc import Callable

from ..core._mlx import mx
from ..core._types import Array, Tree
from ._columns import Columns
from ._folds import Metric
from ._labels import check_ignore, labels_of, predicted
from ._losses import entropy
from ._running import added, as_figure, averaged, check_count, metric, no_mean, nothing, number, or_nan, or_unknown

__all__ = ["accuracy", "check_classes", "f1", "hits", "perplexity", "precision", "recall", "token_accuracy", "top_k"]


def accuracy(
    name: str = "accuracy",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Say for which share of the labels, int `(n, …)`, the largest logit, of `(n, …, classes)`, is that of the label.

    A label that counts and is not from 0 to classes - 1 makes it NaN, as it does the loss of a task.

    Args:
        name: its name in rows and reports.
        ignore: a label that does not count.
        output: which output of a model that returns a dict (a name) or a tuple (an index); None for a single array.
        target: which column of the batch is the target: a name, or an index into a tuple, whose first columns are
            called `x`, `y` and `mask`.
        mask: which column says where a label counts, by being nonzero there; None for no mask. A batch need not have
            the default one.

    Raises:
        ValueError: in a step, where an output or a column is not there; the message names those that are.

    >>> m = accuracy()
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.8, 0.2]]), x=None, y=mx.array([1, 1]))).item()
    0.5
    >>> m = accuracy(output="logits", target="kind")
    >>> m.value(m.update(m.init(), {"logits": mx.eye(2)}, x=None, kind=mx.array([0, 1]), size=None)).item()
    1.0
    """

    def largest(logits: Array, labels: Array) -> Array:
        best, known = predicted(logits)
        return (best == labels) & known

    return _hits(name, Columns(output, target, mask), largest, ignore)


def token_accuracy(
    name: str = "token_accuracy",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Be `accuracy` over the tokens of sequences, `(n, tokens)`: padding is left out by a `mask`, or as `ignore`.

    >>> m = token_accuracy(ignore=0)
    >>> m.value(m.update(m.init(), mx.array([[[0.0, 1.0], [1.0, 0.0]]]), x=None, y=mx.array([[1, 0]]))).item()
    1.0
    """
    return accuracy(name, ignore=ignore, output=output, target=target, mask=mask)


def top_k(
    k: int,
    name: str | None = None,
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Say for which share of the labels the logit is among the `k` largest; a tie counts. Options as in `accuracy`.

    ValueError in a step whose logits have fewer than `k` classes.

    >>> m = top_k(2)
    >>> m.name, m.value(m.update(m.init(), mx.array([[0.5, 0.3, 0.2]]), x=None, y=mx.array([1]))).item()
    ('top_2', 1.0)
    """
    check_count("k of top_k is a count of classes", k)

    def among(logits: Array, labels: Array) -> Array:
        if k > logits.shape[-1]:
            raise ValueError(f"top_k({k}) of {logits.shape[-1]} classes is always 1: k is at most their number")
        own = mx.take_along_axis(logits, labels[..., None], axis=-1)
        return (~(logits <= own)).sum(axis=-1) < k  # NaN is no hit

    return _hits(name or f"top_{k}", Columns(output, target, mask), among, ignore)


def precision(
    classes: int,
    name: str = "precision",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Average over classes the share of right ones among the predictions of a class (macro precision).

    As in scikit-learn with `zero_division=0`, the average is over the classes that were predicted or are labels.
    `classes` is their number, 2 or more; ValueError in a step whose logits have another. Options as in `accuracy`.

    >>> m = precision(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.2, 0.8]]), x=None, y=mx.array([1, 0]))).item()
    0.25
    """
    columns = Columns(output, target, mask)
    return _by_class(name, columns, classes, ignore, lambda right, predicted, labels: right / mx.maximum(predicted, 1))


def recall(
    classes: int,
    name: str = "recall",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Average over classes the share of a class's labels that were predicted (macro recall); classes as `precision`."""
    columns = Columns(output, target, mask)
    return _by_class(name, columns, classes, ignore, lambda right, predicted, labels: right / mx.maximum(labels, 1))


def f1(
    classes: int,
    name: str = "f1",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Average over classes the harmonic mean of precision and recall (macro F1); classes as `precision`."""
    columns = Columns(output, target, mask)
    return _by_class(
        name, columns, classes, ignore, lambda right, predicted, labels: 2 * right / mx.maximum(predicted + labels, 1)
    )


def perplexity(
    name: str = "perplexity",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Raise e to the mean cross entropy of tokens: logits `(n, tokens, vocabulary)` against `y`, int `(n, tokens)`.

    Padding is left out by a `mask`, or as `ignore`. Other options as in `accuracy`.

    >>> m = perplexity()
    >>> round(m.value(m.update(m.init(), mx.zeros((1, 3, 8)), x=None, y=mx.zeros((1, 3), mx.int32))).item(), 4)
    8.0
    """

    check_ignore(ignore)

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        total, weight = entropy(logits.astype(mx.float32), y, mask, ignore, None)
        return {"mean": total / mx.maximum(weight, 1), "count": nothing() + weight.astype(mx.uint64)}

    def value(memory: Tree) -> Array:
        return or_nan(mx.exp(memory["mean"]), memory["count"])

    return metric(name, Columns(output, target, mask), init=no_mean, measure=measure, merge=averaged, value=value)


def _hits(name: str, columns: Columns, hit: Callable[[Array, Array], Array], ignore: int | None) -> Metric:
    check_ignore(ignore)

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        labels, counts, sound = labels_of(logits, y, mask, ignore)
        found = hit(logits, labels)
        count = nothing() + labels.size if counts is None else number(counts)
        return {"hits": or_unknown(sound, number(found if counts is None else found & counts)), "count": count}

    return hits(name, columns, measure)


def hits(name: str, columns: Columns, measure: Callable[[Array, Array, Array | None], Tree]) -> Metric:
    """Make the metric of a share, of which `measure` counts the hits and all that count."""

    def init() -> Tree:
        return {"hits": nothing(), "count": nothing()}

    def value(memory: Tree) -> Array:
        return or_nan(as_figure(memory["hits"]) / mx.maximum(memory["count"], 1), memory["count"])

    return metric(name, columns, init=init, measure=measure, merge=added, value=value, mode="max")


def _by_class(
    name: str, columns: Columns, classes: int, ignore: int | None, score: Callable[[Array, Array, Array], Array]
) -> Metric:
    check_count(f"{name} takes the number of classes", classes, 2)
    check_ignore(ignore)
    counted = ("right", "predicted", "labels")

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        y, counts, sound = labels_of(logits, y, mask, ignore)
        check_classes(name, classes, logits)
        best, known = predicted(logits)
        each = mx.arange(classes)
        chosen, labels = (best[..., None] == each) & known[..., None], y[..., None] == each
        if counts is not None:
            chosen, labels = chosen & counts[..., None], labels & counts[..., None]
        found = zip(counted, (chosen & labels, chosen, labels), strict=True)
        return {key: or_unknown(sound, number(one.reshape(-1, classes), axis=0)) for key, one in found}

    def value(memory: Tree) -> Array:
        right, predicted, labels = (as_figure(memory[key]) for key in counted)
        there = predicted + labels != 0
        mean = mx.where(there, score(right, predicted, labels), 0.0).sum() / mx.maximum(there.sum(), 1)
        return or_nan(mean, there.sum())

    def init() -> Tree:
        return {key: nothing(classes) for key in counted}

    return metric(name, columns, init=init, measure=measure, merge=added, value=value, mode="max")


def check_classes(name: str, classes: int, logits: Array) -> None:
    """Raise ValueError for logits of another number of classes than a metric was made for."""
    if logits.shape[-1] != classes:
        raise ValueError(
            f"metric {name!r} is made for {classes} classes, and the logits {logits.shape} have {logits.shape[-1]}"
        )
