"""Metrics of each class: macro precision, recall and F1, and the confusion between classes."""

from __future__ import annotations

from collections.abc import Callable

from ..core._mlx import mx
from ..core._types import Array, Tree
from ._columns import Columns
from ._folds import Metric
from ._labels import check_ignore, labels_of, predicted
from ._running import (
    add_counters,
    as_float,
    check_count,
    count_true,
    make_metric,
    nan_if_empty,
    unknown_unless,
    zero_counters,
)

__all__ = ["confusion", "f1", "precision", "recall"]


def precision(
    classes: int,
    name: str = "precision",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the macro precision: the mean over classes of the share of correct predictions of a class.

    The mean is over the classes that were predicted or are labels, as in scikit-learn with `zero_division=0`. Logits
    are `(n, …, classes)`, labels are int `(n, …)`.

    Args:
        classes: The number of classes, 2 or more.
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: `classes` is less than 2. In a step: the logits have another number of classes.

    >>> m = precision(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.2, 0.8]]), x=None, y=mx.array([1, 0]))).item()
    0.25
    """

    def score(correct: Array, predicted: Array, labels: Array) -> Array:
        return correct / mx.maximum(predicted, 1)

    return _class_mean(name, Columns(output, target, mask), classes, ignore, score)


def recall(
    classes: int,
    name: str = "recall",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the macro recall: the mean over classes of the share of labels of a class that were predicted.

    The mean is over the same classes as in `precision`. Logits are `(n, …, classes)`, labels are int `(n, …)`.

    Args:
        classes: The number of classes, 2 or more.
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: `classes` is less than 2. In a step: the logits have another number of classes.

    >>> m = recall(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.2, 0.8]]), x=None, y=mx.array([1, 0]))).item()
    0.5
    """

    def score(correct: Array, predicted: Array, labels: Array) -> Array:
        return correct / mx.maximum(labels, 1)

    return _class_mean(name, Columns(output, target, mask), classes, ignore, score)


def f1(
    classes: int,
    name: str = "f1",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure the macro F1: the mean over classes of the harmonic mean of precision and recall.

    The mean is over the same classes as in `precision`. Logits are `(n, …, classes)`, labels are int `(n, …)`.

    Args:
        classes: The number of classes, 2 or more.
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: `classes` is less than 2. In a step: the logits have another number of classes.

    >>> m = f1(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.8, 0.2]]), x=None, y=mx.array([1, 0]))).item()
    1.0
    """

    def score(correct: Array, predicted: Array, labels: Array) -> Array:
        return 2 * correct / mx.maximum(predicted + labels, 1)

    return _class_mean(name, Columns(output, target, mask), classes, ignore, score)


def confusion(
    classes: int,
    name: str = "confusion",
    *,
    ignore: int | None = None,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Count the pairs of label and predicted class in a table `(classes, classes)`: rows are labels.

    Logits that are NaN predict no class. A report shows the table of the last epoch below its rows. A monitor cannot
    watch it. Logits are `(n, …, classes)`, labels are int `(n, …)`.

    Args:
        classes: The number of classes, 2 or more.
        name: The name of the metric in rows and reports.
        ignore: A label that does not count. By default every label counts.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the labels: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a label counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: `classes` is less than 2. In a step: the logits have another number of classes.

    >>> m = confusion(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.2, 0.8]]), x=None, y=mx.array([1, 0]))).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    check_count(f"{name} takes the number of classes", classes, 2)
    check_ignore(ignore)

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        labels, counts, sound = labels_of(logits, y, mask, ignore)
        _check_classes(name, classes, logits)
        best, is_number = predicted(logits)
        counts = is_number if counts is None else is_number & counts
        indices = mx.arange(classes)
        rows = ((labels[..., None] == indices) & counts[..., None]).reshape(-1, classes).astype(mx.float32)
        columns = (best[..., None] == indices).reshape(-1, classes).astype(mx.float32)
        return {"pairs": unknown_unless(sound, (rows.T @ columns).astype(mx.uint64))}

    return make_metric(
        name,
        Columns(output, target, mask),
        init=lambda: {"pairs": zero_counters(classes, classes)},
        measure=measure,
        merge=add_counters,
        value=lambda memory: as_float(memory["pairs"]),
        mode="max",
    )


def _class_mean(
    name: str, columns: Columns, classes: int, ignore: int | None, score: Callable[[Array, Array, Array], Array]
) -> Metric:
    """Make the metric of the mean of `score(correct, predicted, labels)` over classes, three counts of each class."""
    check_count(f"{name} takes the number of classes", classes, 2)
    check_ignore(ignore)
    keys = ("right", "predicted", "labels")

    def measure(logits: Array, y: Array, mask: Array | None) -> Tree:
        y, counts, sound = labels_of(logits, y, mask, ignore)
        _check_classes(name, classes, logits)
        best, is_number = predicted(logits)
        indices = mx.arange(classes)
        chosen, labels = (best[..., None] == indices) & is_number[..., None], y[..., None] == indices
        if counts is not None:
            chosen, labels = chosen & counts[..., None], labels & counts[..., None]
        one_hot = zip(keys, (chosen & labels, chosen, labels), strict=True)
        return {key: unknown_unless(sound, count_true(hot.reshape(-1, classes), axis=0)) for key, hot in one_hot}

    def value(memory: Tree) -> Array:
        correct, predicted, labels = (as_float(memory[key]) for key in keys)
        occurs = predicted + labels != 0
        mean = mx.where(occurs, score(correct, predicted, labels), 0.0).sum() / mx.maximum(occurs.sum(), 1)
        return nan_if_empty(mean, occurs.sum())

    def init() -> Tree:
        return {key: zero_counters(classes) for key in keys}

    return make_metric(name, columns, init=init, measure=measure, merge=add_counters, value=value, mode="max")


def _check_classes(name: str, classes: int, logits: Array) -> None:
    """Raise ValueError for logits of another number of classes than the metric has."""
    if logits.shape[-1] != classes:
        raise ValueError(
            f"metric {name!r} is made for {classes} classes, and the logits {logits.shape} have {logits.shape[-1]}"
        )
