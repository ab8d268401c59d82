"""The usual metrics, as folds inside the compiled step. Each weighs examples, not batches.

They take batches of `x` and `y`, and a `mask` if the batch has one: nonzero where a label, or target, counts. Labels
may be probabilities, of which the likeliest class counts. Logits that are NaN predict no class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core._errors import is_count
from ..core._mlx import mx
from ..core._types import Array, Tree
from ..nn import losses
from ._folds import Metric
from ._labels import as_labels, as_targets, kept, predicted, within

__all__ = [
    "accuracy",
    "f1",
    "mae",
    "mse",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "token_accuracy",
    "top_k",
]


_COUNT = mx.uint64
"""The dtype of counters; one of 32 bits would start anew after 4 billion tokens."""


def accuracy(name: str = "accuracy", *, ignore: int | None = None) -> Metric:
    """Count the labels, int `(n, …)`, at which the largest logit is, of `(n, …, classes)`; those equal to `ignore` not.

    >>> m = accuracy()
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.8, 0.2]]), x=None, y=mx.array([1, 1]))).item()
    0.5
    """

    def largest(logits: Array, y: Array) -> Array:
        best, known = predicted(logits)
        return (best == y) & known

    return _hits(name, largest, ignore)


def token_accuracy(name: str = "token_accuracy", *, ignore: int | None = None) -> Metric:
    """Be `accuracy` over the tokens of sequences, `(n, tokens)`: padding is left out by a `mask`, or as `ignore`.

    >>> m = token_accuracy(ignore=0)
    >>> m.value(m.update(m.init(), mx.array([[[0.0, 1.0], [1.0, 0.0]]]), x=None, y=mx.array([[1, 0]]))).item()
    1.0
    """
    return accuracy(name, ignore=ignore)


def top_k(k: int, name: str | None = None, *, ignore: int | None = None) -> Metric:
    """Count the labels whose logit is among the `k` largest; ties are in its favour.

    >>> m = top_k(2)
    >>> m.name, m.value(m.update(m.init(), mx.array([[0.5, 0.3, 0.2]]), x=None, y=mx.array([1]))).item()
    ('top_2', 1.0)
    """
    _count("k of top_k is a count of classes", k)

    def among(logits: Array, y: Array) -> Array:
        own = mx.take_along_axis(logits, within(logits, y)[..., None], axis=-1)
        found = (~(logits <= own)).sum(axis=-1) < k  # NaN is no hit
        return found & (within(logits, y) == y)  # nor is a label that is no class

    return _hits(name or f"top_{k}", among, ignore)


def precision(classes: int, name: str = "precision") -> Metric:
    """Average over classes the share of right ones among the predictions of a class (macro precision).

    As in scikit-learn with `zero_division=0`, the average is over the classes that were predicted or are labels.

    >>> m = precision(2)
    >>> m.value(m.update(m.init(), mx.array([[0.1, 0.9], [0.2, 0.8]]), x=None, y=mx.array([1, 0]))).item()
    0.25
    """
    return _by_class(name, classes, lambda right, predicted, labels: right / mx.maximum(predicted, 1))


def recall(classes: int, name: str = "recall") -> Metric:
    """Average over classes the share of a class's labels that were predicted (macro recall); classes as `precision`."""
    return _by_class(name, classes, lambda right, predicted, labels: right / mx.maximum(labels, 1))


def f1(classes: int, name: str = "f1") -> Metric:
    """Average over classes the harmonic mean of precision and recall (macro F1); classes as `precision`."""
    return _by_class(name, classes, lambda right, predicted, labels: 2 * right / mx.maximum(predicted + labels, 1))


def mse(name: str = "mse") -> Metric:
    """Average the squared error of predictions against `y`, `(n, …)` each.

    >>> m = mse()
    >>> m.value(m.update(m.init(), mx.array([[1.0], [3.0]]), x=None, y=mx.array([1.0, 1.0]))).item()
    2.0
    """
    return _mean(name, lambda output, y: mx.square(output - y))


def mae(name: str = "mae") -> Metric:
    """Average the absolute error of predictions against `y`, `(n, …)` each."""
    return _mean(name, lambda output, y: mx.abs(output - y))


def r2(name: str = "r2", *, outputs: int = 1) -> Metric:
    """Say how much of the variance of `y`, `(n,)` or `(n, outputs)`, is predicted; the mean over the outputs.

    1 is perfect, 0 no better than the mean. Of a constant `y` it is 1 if predicted exactly, else 0, as in scikit-learn.

    >>> m = r2()
    >>> m.value(m.update(m.init(), mx.array([1.0, 2.0]), x=None, y=mx.array([1.0, 2.0]))).item()
    1.0
    """

    _count("outputs of r2 is a count", outputs)

    def init() -> Tree:
        means = {name: mx.zeros((outputs,)) for name in ("mean", "variance", "error")}
        return means | {"low": mx.full((outputs,), mx.inf), "high": mx.full((outputs,), -mx.inf), "count": _none()}

    def update(memory: Tree, output: Array, x: Any, y: Array, mask: Array | None = None) -> Tree:
        if outputs > 1 and y.shape[-1] != outputs:
            raise ValueError(f"r2 of {outputs} outputs takes y of shape (n, {outputs}); got {y.shape}")
        output, y = (one.astype(mx.float32).reshape(-1, outputs) for one in (output, y))
        known = None if mask is None else kept(y[:, 0], mask.reshape(-1), None)
        counts = (mx.ones((y.shape[0],), mx.bool_) if known is None else known)[:, None]
        number = _number(counts)

        def mean(values: Array) -> Array:
            return mx.where(counts, values, 0.0).sum(axis=0) / mx.maximum(number, 1)

        count, share = _counted(memory, number)
        own = mean(y)
        gap = own - memory["mean"]  # Chan et al.: variances of two sets, merged
        variance = mean(mx.square(y - own)) - memory["variance"]
        return {
            "mean": memory["mean"] + share * gap,
            "variance": memory["variance"] + share * variance + share * (1 - share) * gap * gap,
            "error": memory["error"] + share * (mean(mx.square(output - y)) - memory["error"]),
            "low": mx.minimum(memory["low"], mx.where(counts, y, mx.inf).min(axis=0)),
            "high": mx.maximum(memory["high"], mx.where(counts, y, -mx.inf).max(axis=0)),
            "count": count,
        }

    def value(memory: Tree) -> Array:
        error, variance = memory["error"], memory["variance"]
        constant = memory["low"] >= memory["high"]  # the variance of a constant is not always 0 to rounding
        exact = mx.where(error == 0, mx.array(1.0), mx.array(0.0))
        return mx.where(constant, exact, 1 - error / mx.where(constant, 1.0, variance)).mean()

    return Metric(name, init, update, value, "max")


def perplexity(name: str = "perplexity", *, ignore: int | None = None) -> Metric:
    """Raise e to the mean cross entropy of tokens: logits `(n, tokens, vocabulary)` against `y`, int `(n, tokens)`.

    Padding is left out by a `mask`, or as `ignore`.

    >>> m = perplexity()
    >>> round(m.value(m.update(m.init(), mx.zeros((1, 3, 8)), x=None, y=mx.zeros((1, 3), mx.int32))).item(), 4)
    8.0
    """

    def entropy(logits: Array, y: Array) -> Array:
        return losses.cross_entropy(logits.astype(mx.float32), within(logits, y))

    made = _mean(name, entropy, ignore, aligned=False)
    return Metric(name, made.init, made.update, lambda memory: mx.exp(memory["mean"]))


def _count(what: str, given: int) -> None:
    if not is_count(given, least=1):
        raise ValueError(f"{what}, 1 or more; got {given!r}")


def _none() -> Array:
    return mx.array(0, _COUNT)


def _number(counts: Array) -> Array:
    return counts.sum().astype(_COUNT)


def _counted(memory: Tree, more: Array) -> tuple[Array, Array]:
    """Return the count with `more`, and the share of them in it."""
    count = memory["count"] + more
    return count, more.astype(mx.float32) / mx.maximum(count, 1)


def _hits(name: str, hit: Callable[[Array, Array], Array], ignore: int | None) -> Metric:
    def update(memory: Tree, output: Array, x: Any, y: Array, mask: Array | None = None) -> Tree:
        y = as_labels(output, y)
        counts = kept(y, mask, ignore)
        safe = y if counts is None else mx.where(counts, y, 0)
        hits = hit(output, safe) if counts is None else hit(output, safe) & counts
        count = mx.array(y.size, _COUNT) if counts is None else _number(counts)
        return {"hits": memory["hits"] + _number(hits), "count": memory["count"] + count}

    def init() -> Tree:
        return {"hits": _none(), "count": _none()}

    return Metric(name, init, update, lambda m: m["hits"] / mx.maximum(m["count"], 1), "max")


def _mean(name: str, of: Callable[[Array, Array], Array], ignore: int | None = None, *, aligned: bool = True) -> Metric:
    """Keep a running mean, which stays exact where a sum in float32 would no longer grow."""

    def update(memory: Tree, output: Array, x: Any, y: Array, mask: Array | None = None) -> Tree:
        if aligned:
            y, mask = as_targets(output, y), None if mask is None else as_targets(output, mask)
            output = output.astype(mx.float32)  # the square of 300 is more than float16 holds
        counts = kept(y, mask, ignore)
        values = of(output, y if counts is None else mx.where(counts, y, 0)).astype(mx.float32)
        count = mx.array(values.size, _COUNT) if counts is None else _number(counts)
        total = values.sum() if counts is None else mx.where(counts, values, 0.0).sum()
        after, share = _counted(memory, count)
        mean = total / mx.maximum(count, 1)
        return {"mean": memory["mean"] + share * (mean - memory["mean"]), "count": after}

    def init() -> Tree:
        return {"mean": mx.array(0.0), "count": _none()}

    return Metric(name, init, update, lambda memory: memory["mean"])


def _by_class(name: str, classes: int, score: Callable[[Array, Array, Array], Array]) -> Metric:
    _count(f"{name} takes the number of classes", classes)
    counted = ("right", "predicted", "labels")

    def update(memory: Tree, output: Array, x: Any, y: Array, mask: Array | None = None) -> Tree:
        y, each = as_labels(output, y), mx.arange(classes)
        best, known = predicted(output)
        chosen, labels = (best[..., None] == each) & known[..., None], y[..., None] == each
        if (counts := kept(y, mask, None)) is not None:
            chosen, labels = chosen & counts[..., None], labels & counts[..., None]
        found = (chosen & labels, chosen, labels)
        sums = [one.reshape(-1, classes).sum(axis=0).astype(_COUNT) for one in found]
        return {key: memory[key] + one for key, one in zip(counted, sums, strict=True)}

    def value(memory: Tree) -> Array:
        right, predicted, labels = (memory[key].astype(mx.float32) for key in counted)
        there = predicted + labels > 0
        return mx.where(there, score(right, predicted, labels), 0.0).sum() / mx.maximum(there.sum(), 1)

    return Metric(name, lambda: {key: mx.zeros((classes,), _COUNT) for key in counted}, update, value, "max")
