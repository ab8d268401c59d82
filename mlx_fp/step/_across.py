"""The pass over a batch whose rows are divided among processes: the mean over all of them, in one message."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..across._message import exchange
from ..across._world import World
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State
from ..task._folds import Metric, merged, start
from ..task._mean import Mean
from ..tree._paths import flat
from ._pass import Backward, Pass, Verb

__all__ = ["across"]

tree_map = utils.tree_map


def across(world: World, metrics: Sequence[Metric] = ()) -> Verb:
    """Compute the mean over the rows of all processes. Each process passes its own rows.

    The gradients, the mean of each log, the changed buffers and the memory of the metrics are those of all rows, and
    each process has the same bits of them. They travel in one message of float32. Each process draws random numbers of
    its own, for example for dropout.

    Args:
        world: The processes, see `fp.world`. For one process the verb changes nothing.
        metrics: The metrics of the step. Each needs `merge`.

    Returns:
        A verb, for `train_step(through=[…])`. `train_step(across=world)` chains it after all other verbs.

    Raises:
        ValueError: A metric has no `merge`.

    >>> from mlx_fp import nn, optim, train_step, world
    >>> model, verb = nn.linear(2, 1, bias=False), across(world())
    >>> step = train_step(model, lambda model, x: model(x).mean(), optim.sgd(0.1), through=[verb])
    >>> step(*step.init(0), mx.zeros((4, 2)))[2]["loss"].item()
    0.0
    """
    for metric in metrics:
        if metric.merge is None and world.size > 1:
            raise ValueError(f"metric {metric.name!r} has no merge, and its rows are divided among {world.size} processes")

    def verb(backward: Backward) -> Backward:
        return backward if world.size == 1 else partial(_pass_of_all, world, tuple(metrics), backward)

    return verb


def _pass_of_all(
    world: World, metrics: tuple[Metric, ...], backward: Backward, params: Params, opt_state: State, batch: Batch
) -> Pass:
    """Compute the pass over the rows of this process, and exchange it for the pass over all rows."""
    *own_keys, next_key = mx.random.split(opt_state["key"], world.size + 1)
    own = {**opt_state, "key": own_keys[world.rank], "metrics": start(metrics)}
    done = backward(params, own, batch)
    weights = {name: mx.array(weight, mx.float32) for name, weight in done.weights.items()}
    totals = {name: mx.where(weights[name] > 0, log * weights[name], 0.0) for name, log in done.logs.items()}
    moved = _moved(params, done.rest)
    scaled = tree_map(lambda leaf: leaf.astype(mx.float32) * weights["loss"], (done.grads, moved))
    sums, memories = exchange(world, (scaled, totals, weights), done.opt_state["metrics"])
    (grads, moved_sums), totals, weights = sums
    grads, moved_means = tree_map(lambda total: total / _divisor(weights["loss"]), (grads, moved_sums))
    return Pass(
        grads,
        _with_moved(done.rest, moved_means),
        {**done.opt_state, "key": next_key, "metrics": merged(metrics, [opt_state["metrics"], *memories])},
        {name: Mean(total, weights[name]).value for name, total in totals.items()},
        weights,
    )


def _divisor(weight: Array) -> Array:
    """Return a weight as a divisor, 1 where no value counts."""
    return mx.where(weight > 0, weight, 1.0)


def _moved(params: Params, rest: Params) -> dict[str, Array]:
    """Return the floating arrays in `rest` that the pass has changed, which are buffers, by path."""
    before = flat(params)
    return {
        path: leaf
        for path, leaf in flat(rest).items()
        if leaf is not before[path] and mx.issubdtype(leaf.dtype, mx.floating)
    }


def _with_moved(rest: Params, moved: dict[str, Array]) -> Params:
    """Put arrays at their paths into `rest`, in the dtypes of the arrays there."""
    return utils.tree_map_with_path(
        lambda path, leaf: moved[path].astype(leaf.dtype) if path in moved else leaf, rest, path=""
    )
