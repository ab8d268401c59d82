"""The metrics of predicted numbers."""

from __future__ import annotations

from collections.abc import Callable

from ..core._mlx import mx
from ..core._types import Array, Tree
from ._columns import Columns
from ._folds import Metric
from ._labels import as_column, as_targets, kept
from ._running import averaged, check_count, mean_of, metric, no_mean, nothing, number, or_nan, shares, towards

__all__ = ["mae", "mse", "r2"]


def mse(
    name: str = "mse", *, output: str | int | None = None, target: str | int = "y", mask: str | int | None = "mask"
) -> Metric:
    """Average the squared error of predictions against targets of their shape, or `(n,)` for predictions `(n, 1)`.

    Options as in `accuracy`. ValueError for targets of another shape.

    >>> m = mse()
    >>> m.value(m.update(m.init(), mx.array([[1.0], [3.0]]), x=None, y=mx.array([1.0, 1.0]))).item()
    2.0
    """
    return _mean_error(name, Columns(output, target, mask), mx.square)


def mae(
    name: str = "mae", *, output: str | int | None = None, target: str | int = "y", mask: str | int | None = "mask"
) -> Metric:
    """Average the absolute error of predictions against targets; shapes and options as in `mse`."""
    return _mean_error(name, Columns(output, target, mask), mx.abs)


def r2(
    name: str = "r2",
    *,
    outputs: int = 1,
    output: str | int | None = None,
    target: str | int = "y",
    mask: str | int | None = "mask",
) -> Metric:
    """Say how much of the variance of the targets is predicted; the mean over the outputs.

    1 is perfect, 0 no better than the mean. Of constant targets it is 1 if predicted exactly, else 0, as in
    scikit-learn.

    Args:
        name: its name in rows and reports.
        outputs: how many numbers a row has, in targets `(n, outputs)`; one in targets `(n,)`.
        output: as in `accuracy`, and so are `target` and `mask`; a mask has a place for each row.
        target: see `output`.
        mask: see `output`.

    Raises:
        ValueError: `outputs` is no count, or targets have another shape than predictions.

    >>> m = r2()
    >>> m.value(m.update(m.init(), mx.array([1.0, 2.0]), x=None, y=mx.array([1.0, 2.0]))).item()
    1.0
    """
    check_count("outputs of r2 is a count", outputs)

    def init() -> Tree:
        means = {name: mx.zeros((outputs,)) for name in ("mean", "variance", "error")}
        return means | {"low": mx.full((outputs,), mx.inf), "high": mx.full((outputs,), -mx.inf), "count": nothing()}

    def measure(predictions: Array, y: Array, mask: Array | None) -> Tree:
        if outputs > 1 and y.shape[-1] != outputs:
            raise ValueError(f"r2 of {outputs} outputs takes y of shape (n, {outputs}); got {y.shape}")
        y = as_targets(predictions, y, "r2")
        predictions, y = (one.astype(mx.float32).reshape(-1, outputs) for one in (predictions, y))
        return _moments(predictions, y, mask)

    return metric(
        name,
        Columns(output, target, mask),
        init=init,
        measure=measure,
        merge=_merged_moments,
        value=_explained,
        mode="max",
    )


def _mean_error(name: str, columns: Columns, error: Callable[[Array], Array]) -> Metric:
    def measure(predictions: Array, y: Array, mask: Array | None) -> Tree:
        y = as_targets(predictions, y, name)
        counts = kept(y, None if mask is None else as_column(predictions, mask), None)
        off = error(predictions.astype(mx.float32) - y)  # the square of 300 is more than float16 holds
        return mean_of(off.astype(mx.float32), counts)

    def value(memory: Tree) -> Array:
        return or_nan(memory["mean"], memory["count"])

    return metric(name, columns, init=no_mean, measure=measure, merge=averaged, value=value)


def _moments(predictions: Array, y: Array, mask: Array | None) -> Tree:
    """Return mean, variance, mean squared error and range of each output over rows `(n, outputs)`, and their number."""
    known = None if mask is None else kept(y[:, 0], mask.reshape(-1), None)
    counts = (mx.ones((y.shape[0],), mx.bool_) if known is None else known)[:, None]
    count = number(counts)

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


def _merged_moments(one: Tree, other: Tree) -> Tree:
    """Merge the moments of two sets of rows, the variances by Chan et al., 1979."""
    count, share = shares(one, other)
    gap = other["mean"] - one["mean"]
    return {
        "mean": towards(one["mean"], other["mean"], share),
        "variance": towards(one["variance"], other["variance"], share) + share * (1 - share) * gap * gap,
        "error": towards(one["error"], other["error"], share),
        "low": mx.minimum(one["low"], other["low"]),
        "high": mx.maximum(one["high"], other["high"]),
        "count": count,
    }


def _explained(memory: Tree) -> Array:
    error, variance = memory["error"], memory["variance"]
    constant = memory["low"] >= memory["high"]  # the variance of a constant is not always 0 to rounding
    exact = mx.where(error == 0, mx.array(1.0), mx.array(0.0))
    score = mx.where(constant, exact, 1 - error / mx.where(constant, 1.0, variance)).mean()
    return or_nan(score, memory["count"])
