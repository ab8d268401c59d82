"""Metrics of predicted classes and tokens: the share of correct labels, and perplexity."""

from __future__ import annotations

from collections.abc import Callable

from ..core._mlx import mx
from ..core._types import Array, Tree
from ._columns import Columns
from ._folds import Metric
from ._labels import check_ignore, labels_of, predicted
from ._losses import entropy
from ._running import (
    add_counters,
    as_float,
    check_count,
    count_true,
    empty_mean,
    exp_of_mean,
    make_metric,
    memory_of_mean,
    merge_means,
    nan_if_empty,
    unknown_unless,
    zero_counters,
)

__all__ = ["accuracy", "perplexity", "share_metric", "token_accuracy", "top_k"]


def accuracy(
    name: str = "accuracy",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the share of labels at which the label has the largest logit.

    Logits are `(n, …, classes)`, labels are int `(n, …)`. A label that counts and lies outside `[0, classes)` makes the
    metric NaN, as it makes the loss of a task NaN.

    Args:
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: In a step: the output or a column does not exist. The message names the existing ones.

    >>> m = accuracy()
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.8, 0.2]]), x=None, y=mx.array([1, 1]))).item()
    0.5
    >>> m = accuracy(output="logits", target="kind")
    >>> m.value(m.update(m.init(), {"logits": mx.eye(2)}, x=None, kind=mx.array([0, 1]), size=None)).item()
    1.0
    """

    def is_largest(logits: Array, labels: Array) -> Array:
        best, is_number = predicted(logits)
        return (best == labels) & is_number

    return _hit_rate(name, Columns(output, target, mask), is_largest, ignore)


def token_accuracy(
    name: str = "token_accuracy",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure `accuracy` over the tokens of sequences, `(n, tokens)`.

    Leave padding out by a mask, or by `ignore`. For example, `token_accuracy(ignore=0)` leaves out the token 0.

    Args:
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

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
    """Measure the share of labels whose logit is among the `k` largest. A tie counts as a hit.

    Logits are `(n, …, classes)`, labels are int `(n, …)`.

    Args:
        k: The number of classes that count as predicted.
        name: The name of the metric; by default for example `top_5`.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: `k` is no count. In a step: the logits have fewer than `k` classes.

    >>> m = top_k(2)
    >>> m.name, m.value(m.update(m.init(), mx.array([[0.5, 0.3, 0.2]]), x=None, y=mx.array([1]))).item()
    ('top_2', 1.0)
    """
    check_count("k of top_k is a count of classes", k)

    def is_among(logits: Array, labels: Array) -> Array:
        if k > logits.shape[-1]:
            raise ValueError(f"top_k({k}) of {logits.shape[-1]} classes is always 1: k is at most their number")
        label_logits = mx.take_along_axis(logits, labels[..., None], axis=-1)
        return (~(logits <= label_logits)).sum(axis=-1) < k  # NaN is no hit

    return _hit_rate(name or f"top_{k}", Columns(output, target, mask), is_among, ignore)


def perplexity(
    name: str = "perplexity",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the perplexity: e to the power of the mean cross entropy of tokens.

    Logits are `(n, tokens, vocabulary)`, labels are int `(n, tokens)`. Leave padding out by a mask, or by `ignore`.

    Args:
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    >>> m = perplexity()
    >>> round(m.value(m.update(m.init(), mx.zeros((1, 3, 8)), x=None, y=mx.zeros((1, 3), mx.int32))).item(), 4)
    8.0
    """
    check_ignore(ignore)

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        return memory_of_mean(entropy(logits.astype(mx.float32), y, mask, ignore, None))

    columns = Columns(output, target, mask)
    return make_metric(name, columns, init=empty_mean, measure=measure, merge=merge_means, value=exp_of_mean)


def _hit_rate(name: str, columns: Columns, is_hit: Callable[[Array, Array], Array], ignore: int | None) -> Metric:
    """Make the metric of the share of labels that are hits: `is_hit(logits, labels)` is bool, `(n, …)`."""
    check_ignore(ignore)

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        labels, counts, sound = labels_of(logits, y, mask, ignore)
        hits = is_hit(logits, labels)
        count = zero_counters() + labels.size if counts is None else count_true(counts)
        return {"hits": unknown_unless(sound, count_true(hits if counts is None else hits & counts)), "count": count}

    return share_metric(name, columns, measure)


def share_metric(name: str, columns: Columns, measure: Callable[[Array, Array, Array | None], Tree]) -> Metric:
    """Make the metric of a share. `measure(output, y, mask)` returns the counters `hits` and `count` of a batch."""

    def init() -> Tree:
        return {"hits": zero_counters(), "count": zero_counters()}

    def value(memory: Tree) -> Array:
        return nan_if_empty(as_float(memory["hits"]) / mx.maximum(memory["count"], 1), memory["count"])

    return make_metric(name, columns, init=init, measure=measure, merge=add_counters, value=value, mode="max")
