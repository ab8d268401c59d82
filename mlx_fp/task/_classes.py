"""The metrics of predicted classes and tokens."""

from __future__ import annotations

from collections.abc import Callable

from ..core._mlx import mx
from ..core._types import Array, Tree
from ..nn import losses
from ._columns import Columns
from ._folds import Metric
from ._labels import as_labels, kept, predicted, within
from ._running import added, averaged, check_count, mean_of, metric, no_mean, nothing, number, or_nan

__all__ = ["accuracy", "f1", "perplexity", "precision", "recall", "token_accuracy", "top_k"]


def accuracy(
    name: str = "accuracy",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Say for which share of the labels, int `(n, …)`, the largest logit, of `(n, …, classes)`, is that of the label.

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

    def largest(logits: Array, y: Array) -> Array:
        best, known = predicted(logits)
        return (best == y) & known

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

    >>> m = top_k(2)
    >>> m.name, m.value(m.update(m.init(), mx.array([[0.5, 0.3, 0.2]]), x=None, y=mx.array([1]))).item()
    ('top_2', 1.0)
    """
    check_count("k of top_k is a count of classes", k)

    def among(logits: Array, y: Array) -> Array:
        own = mx.take_along_axis(logits, within(logits, y)[..., None], axis=-1)
        found = (~(logits <= own)).sum(axis=-1) < k  # NaN is no hit
        return found & (within(logits, y) == y)  # nor is a label that is no class

    return _hits(name or f"top_{k}", Columns(output, target, mask), among, ignore)


def precision(
    classes: int,
    name: str = "precision",
    *,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Average over classes the share of right ones among the predictions of a class (macro precision).

    As in scikit-learn with `zero_division=0`, the average is over the classes that were predicted or are labels.
    Options as in `accuracy`.

    >>> m = precision(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.2, 0.8]]), x=None, y=mx.array([1, 0]))).item()
    0.25
    """
    columns = Columns(output, target, mask)
    return _by_class(name, columns, classes, lambda right, predicted, labels: right / mx.maximum(predicted, 1))


def recall(
    classes: int,
    name: str = "recall",
    *,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Average over classes the share of a class's labels that were predicted (macro recall); classes as `precision`."""
    columns = Columns(output, target, mask)
    return _by_class(name, columns, classes, lambda right, predicted, labels: right / mx.maximum(labels, 1))


def f1(
    classes: int,
    name: str = "f1",
    *,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Average over classes the harmonic mean of precision and recall (macro F1); classes as `precision`."""
    columns = Columns(output, target, mask)
    return _by_class(
        name, columns, classes, lambda right, predicted, labels: 2 * right / mx.maximum(predicted + labels, 1)
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

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        counts = kept(y, mask, ignore)
        safe = within(logits, y if counts is None else mx.where(counts, y, 0))
        return mean_of(losses.cross_entropy(logits.astype(mx.float32), safe), counts)

    def value(memory: Tree) -> Array:
        return or_nan(mx.exp(memory["mean"]), memory["count"])

    return metric(name, Columns(output, target, mask), init=no_mean, measure=measure, merge=averaged, value=value)


def _hits(name: str, columns: Columns, hit: Callable[[Array, Array], Array], ignore: int | None) -> Metric:
    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        y = as_labels(logits, y)
        counts = kept(y, mask, ignore)
        if counts is None:
            return {"hits": number(hit(logits, y)), "count": nothing() + y.size}
        return {"hits": number(hit(logits, mx.where(counts, y, 0)) & counts), "count": number(counts)}

    def init() -> Tree:
        return {"hits": nothing(), "count": nothing()}

    def value(memory: Tree) -> Array:
        return or_nan(memory["hits"] / mx.maximum(memory["count"], 1), memory["count"])

    return metric(name, columns, init=init, measure=measure, merge=added, value=value, mode="max")


def _by_class(name: str, columns: Columns, classes: int, score: Callable[[Array, Array, Array], Array]) -> Metric:
    check_count(f"{name} takes the number of classes", classes)
    counted = ("right", "predicted", "labels")

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        y, each = as_labels(logits, y), mx.arange(classes)
        best, known = predicted(logits)
        chosen, labels = (best[..., None] == each) & known[..., None], y[..., None] == each
        if (counts := kept(y, mask, None)) is not None:
            chosen, labels = chosen & counts[..., None], labels & counts[..., None]
        found = (chosen & labels, chosen, labels)
        return {key: number(one.reshape(-1, classes), axis=0) for key, one in zip(counted, found, strict=True)}

    def value(memory: Tree) -> Array:
        right, predicted, labels = (memory[key].astype(mx.float32) for key in counted)
        there = predicted + labels > 0
        mean = mx.where(there, score(right, predicted, labels), 0.0).sum() / mx.maximum(there.sum(), 1)
        return or_nan(mean, there.sum())

    def init() -> Tree:
        return {key: nothing(classes) for key in counted}

    return metric(name, columns, init=init, measure=measure, merge=added, value=value, mode="max")
