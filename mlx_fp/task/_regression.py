"""Metrics of predicted numbers."""

from __future__ import annotations

from collections.abc import Callable

from ..core._mlx import mx
from ..core._types import Array, Tree
from ._columns import Columns
from ._folds import Metric
from ._labels import as_column, as_targets, counting
from ._running import (
    check_count,
    count_true,
    empty_mean,
    make_metric,
    mean_memory,
    merge_means,
    merged_count,
    move_mean,
    nan_if_empty,
    zero_counters,
)

__all__ = ["mae", "mse", "r2"]


def mse(
    name: str = "mse", *, output: str | int | None = None, target: str | int = "y", mask: str | int | None = "mask"
) -> Metric:
    """Measure the mean squared error of predictions `(n, …)`.

    Targets have the same shape, or `(n,)` for predictions `(n, 1)`.

    Args:
        name: The name of the metric in rows and reports.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the targets: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a target counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: In a step: the targets have another shape.

    >>> m = mse()
    >>> m.value(m.update(m.init(), mx.array([[1.0], [3.0]]), x=None, y=mx.array([1.0, 1.0]))).item()
    2.0
    """
    return _mean_error(name, Columns(output, target, mask), mx.square)


def mae(
    name: str = "mae", *, output: str | int | None = None, target: str | int = "y", mask: str | int | None = "mask"
) -> Metric:
    """Measure the mean absolute error of predictions `(n, …)`.

    Targets have the same shape, or `(n,)` for predictions `(n, 1)`.

    Args:
        name: The name of the metric in rows and reports.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the targets: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a target counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: In a step: the targets have another shape.

    >>> m = mae()
    >>> m.value(m.update(m.init(), mx.array([[1.0], [4.0]]), x=None, y=mx.array([1.0, 1.0]))).item()
    1.5
    """
    return _mean_error(name, Columns(output, target, mask), mx.abs)


def r2(
    name: str = "r2",
    *,
    outputs: int = 1,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Measure R², the share of the variance of the targets that is predicted, as the mean over the outputs.

    1 is perfect; 0 is no better than predicting the mean. For constant targets the value is 1 if every prediction is
    exact, else 0, as in scikit-learn.

    Args:
        name: The name of the metric in rows and reports.
        outputs: The count of numbers in a row: targets are `(n, outputs)`, or `(n,)` for one output.
        output: The output of the model to measure, where the model returns a dict (a name) or a tuple (an index).
        target: The column of the batch that holds the targets: a name, or an index into a tuple. The first columns of a
            tuple are called `x`, `y` and `mask`.
        mask: The column that is nonzero where a row counts. A batch may lack the default column. None: no mask.

    Returns:
        A Metric: a fold inside the compiled step.

    Raises:
        ValueError: `outputs` is no count. In a step: targets have another shape than predictions.

    >>> m = r2()
    >>> m.value(m.update(m.init(), mx.array([1.0, 2.0]), x=None, y=mx.array([1.0, 2.0]))).item()
    1.0
    """
    check_count("outputs of r2 is a count", outputs)

    def init() -> Tree:
        means = {name: mx.zeros((outputs,)) for name in ("mean", "variance", "error")}
        return means | {
            "low": mx.full((outputs,), mx.inf),
            "high": mx.full((outputs,), -mx.inf),
            "count": zero_counters(),
        }

    def measure(predictions: Array, y: Array, mask: Array | None) -> Tree:
        if outputs > 1 and y.shape[-1] != outputs:
            raise ValueError(f"r2 of {outputs} outputs takes y of shape (n, {outputs}); got {y.shape}")
        y = as_targets(predictions, y, "r2")
        predictions, y = (array.astype(mx.float32).reshape(-1, outputs) for array in (predictions, y))
        return _moments(predictions, y, mask)

    return make_metric(
        name,
        Columns(output, target, mask),
        init=init,
        measure=measure,
        merge=_merge_moments,
        value=_explained,
        mode="max",
    )


def _mean_error(name: str, columns: Columns, error: Callable[[Array], Array]) -> Metric:
    """Make the metric of the mean of `error(prediction - target)`."""

    def measure(predictions: Array, y: Array, mask: Array | None) -> Tree:
        y = as_targets(predictions, y, name)
        counts = counting(y, None if mask is None else as_column(predictions, mask), None)
        errors = error(predictions.astype(mx.float32) - y)  # float16 cannot hold the square of 300
        return mean_memory(errors.astype(mx.float32), counts)

    def value(memory: Tree) -> Array:
        return nan_if_empty(memory["mean"], memory["count"])

    return make_metric(name, columns, init=empty_mean, measure=measure, merge=merge_means, value=value)


def _moments(predictions: Array, y: Array, mask: Array | None) -> Tree:
    """Return the moments of rows `(n, outputs)`: the mean, variance, error and range of each output, and a count."""
    unmasked = None if mask is None else counting(y[:, 0], mask.reshape(-1), None)
    counts = (mx.ones((y.shape[0],), mx.bool_) if unmasked is None else unmasked)[:, None]
    count = count_true(counts)

    def mean(values: Array) -> Array:
        return mx.where(counts, values, 0.0).sum(axis=0) / mx.maximum(count, 1)

    return {
        "mean": (center := mean(y)),
        "variance": mean(mx.square(y - center)),
        "error": mean(mx.square(predictions - y)),
        "low": mx.where(counts, y, mx.inf).min(axis=0),
        "high": mx.where(counts, y, -mx.inf).max(axis=0),
        "count": count,
    }


def _merge_moments(one: Tree, other: Tree) -> Tree:
    """Merge the moments of two sets of rows. The variances are merged as in Chan, Golub and LeVeque, 1979."""
    count, share = merged_count(one, other)
    gap = other["mean"] - one["mean"]
    return {
        "mean": move_mean(one["mean"], other["mean"], share),
        "variance": move_mean(one["variance"], other["variance"], share) + share * (1 - share) * gap * gap,
        "error": move_mean(one["error"], other["error"], share),
        "low": mx.minimum(one["low"], other["low"]),
        "high": mx.maximum(one["high"], other["high"]),
        "count": count,
    }


def _explained(memory: Tree) -> Array:
    """Return R² of the moments of all rows."""
    error, variance = memory["error"], memory["variance"]
    constant = memory["low"] >= memory["high"]  # after rounding the variance of a constant is not always 0
    exact = mx.where(error == 0, mx.array(1.0), mx.array(0.0))
    score = mx.where(constant, exact, 1 - error / mx.where(constant, 1.0, variance)).mean()
    return nan_if_empty(score, memory["count"])
