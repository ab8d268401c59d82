"""The task to find the partner of each row among the partners of all rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core._entropy import class_entropy
from ..core._errors import unknown
from ..core._mlx import mx
from ..core._options import check_options, number
from ..core._types import Array, Batch, Forward, Tree
from ..tree._paths import flat
from ._folds import Metric, checked
from ._mean import Mean, mean
from ._outputs import outputs
from ._task import CollateSpec, Task, watched_figure

__all__ = ["contrastive"]

_LARGEST_SCALE = 100.0
"""The largest factor of a learned temperature, as in CLIP."""

_EXCLUDED = -1e30
"""The similarity of a row that does not count. It is finite, so that no gradient is NaN."""


def contrastive(
    *,
    temperature: float | str = 0.07,
    towers: tuple[str, str] | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: CollateSpec | None = None,
) -> Task:
    """Make the task to find the partner of each row among all rows of a batch, by cosine similarity.

    Batches are pairs `(a, b)`, in which row i of `a` belongs to row i of `b`; the other rows are the negatives. The
    model turns each into vectors `(n, dims)`. The loss is the cross entropy of the similarities, divided by the
    temperature, averaged over both directions: van den Oord et al., https://arxiv.org/abs/1807.03748, and in this
    symmetric form Radford et al., https://arxiv.org/abs/2103.00020. A pair counts neither as a row nor as a negative
    where a third column `mask`, `(n,)`, is 0. The figure `accuracy` is the share of rows whose partner is the most
    similar row, averaged over both directions. Metrics receive the similarities, `(n, n)`.

    The loss compares the rows of a batch with each other. It is therefore no mean that is independent of the cutting of
    a batch: a larger batch is a harder task. `parts` and `streams` of `fit` are an error with this task. With
    `accumulate`, the negatives are those of one batch. Compare validations of one batch size only.

    Args:
        temperature: The temperature, above 0. Or the path of a parameter, a scalar, that learns the logarithm of
            1 / temperature; it begins for example at `math.log(1 / 0.07)`, and 1 / temperature is at most 100.
        towers: The names of two parts of the model, for example of `nn.branch(image=…, text=…)`: the first turns `a`
            into vectors, the second `b`. They are also the names of the columns, where batches are dicts. None: the
            model itself turns both into vectors, and the columns are `a` and `b`.
        metrics: Metrics of the similarities; none by default.
        monitor: The figure to watch, by default `val_loss`.
        mode: The direction of that figure, `"min"` or `"max"`.
        collate: A spec for `data.collate`, which shapes the batches into pairs. By default columns are bound by name.

    Returns:
        A Task, for `fp.trainer`.

    Raises:
        ValueError: The temperature is out of range. In a step: the vectors have other shapes.
        TypeError: `towers` are not two names.
        KeyError: In a step: the model has no parameter at the path of the temperature.

    >>> from mlx_fp import nn, optim, train_step
    >>> step = train_step(nn.linear(4, 2), contrastive().loss, optim.sgd(0.1))
    >>> x = mx.random.normal((8, 4), key=mx.random.key(0))
    >>> params, state, logs = step(*step.init(0), (x, x))
    >>> logs["accuracy"].item()
    1.0
    """
    if not isinstance(temperature, str):
        check_options("contrastive", {"temperature": temperature}, {"temperature": number(above=0)})
    if towers is not None and not (
        isinstance(towers, (tuple, list)) and len(towers) == 2 and all(isinstance(name, str) for name in towers)
    ):
        raise TypeError(f"towers of contrastive are the names of two parts of the model; got {towers!r}")

    def contrast(forward: Forward, a: Tree, b: Tree, mask: Array | None = None) -> tuple[Mean, dict[str, Mean | Array]]:
        encode = (forward, forward) if towers is None else tuple(getattr(forward, name) for name in towers)
        scale = _scale(forward, temperature)
        similarities = outputs(_similarities(encode[0](a), encode[1](b)) * scale)
        loss, accuracy = _retrieval(similarities, mask)
        learned = {"temperature": 1 / scale} if isinstance(temperature, str) else {}
        return loss, {"accuracy": accuracy, **learned}

    folds = () if metrics is None else checked(metrics)
    watched = monitor or watched_figure("val_loss", folds)
    shape = collate or _pairs(towers or ("a", "b"))
    return Task("contrastive", contrast, folds, watched, mode, shape, "rows", whole_batches=True)


def _pairs(names: Sequence[str]) -> CollateSpec:
    """Return a function that binds the columns of a dict by their names, and leaves other batches as they are."""

    def bind(batch: Batch) -> Batch:
        if not isinstance(batch, dict):
            return batch
        missing = [name for name in names if name not in batch]
        if missing:
            raise ValueError(f"a pair is of the columns {' and '.join(names)}; {unknown('column', missing[0], batch)}")
        return tuple(batch[name] for name in (*names, "mask") if name in batch)

    return bind


def _scale(forward: Forward, temperature: float | str) -> Array:
    """Return 1 / temperature, from a number or from the parameter that learns its logarithm."""
    if not isinstance(temperature, str):
        return mx.array(1 / temperature)
    leaves = flat(forward.params)
    if temperature not in leaves:
        raise KeyError(unknown("parameter that learns the temperature,", temperature, leaves))
    logarithm = leaves[temperature].astype(mx.float32).reshape(())
    return mx.exp(mx.minimum(logarithm, math.log(_LARGEST_SCALE)))


def _similarities(a: Array, b: Array) -> Array:
    """Return the cosine similarity of each row of `a` to each row of `b`, in float32: `(n, dims), … -> (n, n)`.

    >>> _similarities(mx.array([[2.0, 0.0], [0.0, 1.0]]), mx.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"a pair of batches gives vectors of one shape, (n, dims); they are {a.shape} and {b.shape}")
    a, b = (_unit(vectors.astype(mx.float32)) for vectors in (a, b))
    return a @ b.T


def _unit(vectors: Array) -> Array:
    """Divide each row by its length. A row of zeros stays as it is, and its gradient is finite."""
    squares = mx.square(vectors).sum(axis=-1, keepdims=True)
    return vectors * mx.rsqrt(mx.maximum(squares, 1e-12))


def _retrieval(similarities: Array, mask: Array | None) -> tuple[Mean, Mean]:
    """Return the loss and the accuracy of the rows that count, each averaged over both directions."""
    rows = similarities.shape[0]
    counts = mx.ones((rows,), mx.bool_) if mask is None else mask != 0
    if counts.shape != (rows,):
        raise ValueError(f"a mask of pairs has a place for each row, ({rows},); it is {counts.shape}")
    losses, hits = mx.zeros((rows,)), mx.zeros((rows,))
    for direction in (similarities, similarities.T):
        candidates = mx.where(counts[None, :], direction, _EXCLUDED)
        losses = losses + class_entropy(candidates, mx.arange(rows)) / 2
        hits = hits + (mx.argmax(candidates, axis=-1) == mx.arange(rows)) / 2
    return mean(losses, where=counts), mean(hits, where=counts)
