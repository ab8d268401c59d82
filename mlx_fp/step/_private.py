"""Differentially private gradients: the gradient of each row, clipped, and noise on their sum."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from ..core._mlx import mx, utils
from ..core._options import check_options, number
from ..core._types import Array, Batch, Params, State, Tree
from ..tree._casting import widened
from ..tree._paths import flat, leaves
from ._enclosing import NamedVerb
from ._pass import Backward, Pass, Verb
from ._rows import counted_rows, row_at

__all__ = ["private"]

_TINY = 1e-12
"""Added to the norm of a gradient, which may be 0."""

RowResult = tuple[Tree, State, State]
"""The clipped gradients of a row, its logs and their weights."""


def private(clip: float, noise: float) -> Verb:
    """Clip the gradient of each row, and add Gaussian noise to the sum of the gradients.

    This is the step of DP-SGD (Abadi et al., https://arxiv.org/abs/1607.00133): for a batch of `n` rows, the gradient
    is `(sum of g_i * min(1, clip / |g_i|) + z) / n`, where `z` has the standard deviation `noise * clip`. Each row has
    the same weight. The privacy of a run depends on its rate of sampling and its number of steps; an accountant, for
    example of the package `dp-accounting`, computes it from `noise`.

    The gradients of all rows are computed together, by `mx.vmap`, and are in memory together. MLX has no `vmap` of some
    operations, for example of the gradients of two convolutions in turn. Then one row is computed after another, with a
    RuntimeWarning. Logs and metrics are not private: do not publish them.

    Args:
        clip: The maximum L2 norm of the gradient of a row, over all parameters that train; above 0.
        noise: The standard deviation of the noise, in units of `clip`; 0 or more.

    Returns:
        A verb, for `train_step(through=[…])`. It stands last: no other verb of `fp.passes` may enclose it.

    Raises:
        ValueError: `clip` or `noise` is out of range. In a step: the arrays of the batch differ in their rows, or the
            model has batch norm, which mixes rows.

    >>> private(1.0, 1.1)
    private(1.0, 1.1)
    """
    check_options("private", {"clip": clip, "noise": noise}, {"clip": number(above=0), "noise": number(0)})

    def verb(backward: Backward) -> Backward:
        def run(params: Params, opt_state: State, batch: Batch) -> Pass:
            rows = counted_rows(batch, "private takes the gradient of each row")
            _check_rows_stay_apart(params)
            key, rows_key, noise_key = mx.random.split(opt_state["key"], 3)
            whole = backward(params, {**opt_state, "key": key}, batch)  # its gradients are not used: not computed

            def one(index: Array, row_key: Array) -> RowResult:
                done = backward(params, {**opt_state, "key": row_key}, row_at(batch, index))
                grads = widened(done.grads)
                return _clipped(grads, clip), done.logs, utils.tree_map(mx.array, done.weights)

            clipped, logs, weights = _for_each_row(one, mx.arange(rows)[:, None], mx.random.split(rows_key, rows))
            grads = _noisy_mean(clipped, rows, noise * clip, noise_key)
            totals = {name: weight.sum() for name, weight in weights.items()}
            means = {name: _mean(log, weights[name]) if name in weights else log.mean() for name, log in logs.items()}
            return whole._replace(grads=grads, logs=means, weights=totals)

        return run

    return NamedVerb("private", f"private({clip}, {noise})", verb)


def _for_each_row(one: Callable[[Array, Array], RowResult], indices: Array, keys: Array) -> RowResult:
    """Call a function for each row; return its results, stacked."""
    try:
        stacked: RowResult = mx.vmap(one)(indices, keys)
        return stacked
    except ValueError as error:
        if "[Primitive::vmap]" not in str(error):
            raise
        reason = str(error)
    warnings.warn(
        f"private computes {len(indices)} rows one after another, because MLX cannot compute them together: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
    results = [one(indices[i], keys[i]) for i in range(len(indices))]
    stacked = utils.tree_map(lambda *rows: mx.stack(list(rows)), *results)
    return stacked


def _clipped(grads: Tree, clip: float) -> Tree:
    """Scale the gradient of a row to a maximum norm."""
    length = mx.sqrt(mx.stack([mx.square(g).sum() for g in leaves(grads)]).sum())
    factor = mx.minimum(clip / (length + _TINY), 1.0)
    return utils.tree_map(lambda g: g * factor, grads)


def _noisy_mean(grads: Tree, rows: int, deviation: float, key: Array) -> Tree:
    """Return the mean of the gradients of rows, with noise of a standard deviation on their sum."""
    if deviation == 0:
        return utils.tree_map(lambda g: g.sum(0) / rows, grads)
    keys = iter(mx.random.split(key, len(leaves(grads))))

    def noisy(g: Array) -> Array:
        return (g.sum(0) + deviation * mx.random.normal(g.shape[1:], key=next(keys))) / rows

    return utils.tree_map(noisy, grads)


def _mean(values: Array, weights: Array) -> Array:
    """Return the mean of values by weight. A value without weight may be NaN."""
    return mx.where(weights > 0, values * weights, 0.0).sum() / weights.sum()


def _check_rows_stay_apart(params: Params) -> None:
    """Raise ValueError for a model with batch norm."""
    mixing = [path.rpartition(".")[0] for path in flat(params) if path.endswith("running_mean")]
    if mixing:
        raise ValueError(
            f"private needs rows that do not depend on one another, and {', '.join(mixing)} is batch norm: use "
            "nn.group_norm or nn.layer_norm"
        )
