"""The pass over a batch whose rows are divided among processes: the mean over all of them, in one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..across._flags import Flags
from ..across._message import Figures, Message, exchange, exchange_figures
from ..across._world import ALONE, World
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State, Tree
from ..task._folds import Metric, merged, start
from ..task._mean import Mean
from ..tree._paths import flat
from ..tree._select import Select, nothing
from ._pass import Backward, Pass, Verb

__all__ = ["FLAGS", "Exchange", "Part", "across"]

tree_map, tree_map_with_path = utils.tree_map, utils.tree_map_with_path

FLAGS = "flags of the processes"
"""The name of the flags of a message among the logs of a step. The loss of a run has no figure of such a name."""


class Part(NamedTuple):
    """The rows of a batch that are of this process."""

    batch: Batch
    counts: Array
    """1.0, or 0.0 where this process has no rows of the batch. The rows in `batch` are then ignored."""
    flags: Array
    """The flags that travel with the message of the step."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange of messages between processes, in and beside steps."""

    world: World = ALONE
    metrics: tuple[Metric, ...] = ()
    buffers: Callable[[Params], Select] = lambda params: nothing
    """`buffers(params)` selects the leaves that are buffers."""

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric.merge is None and self.world.size > 1:
                raise ValueError(
                    f"metric {metric.name!r} has no merge, and the rows are divided among {self.world.size} processes"
                )

    def whole_pass(self, backward: Backward, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the pass over the rows of this process, and exchange it for the pass over all rows."""
        of_a_run = isinstance(batch, Part)
        part = batch if of_a_run else Part(batch, mx.array(1.0), Flags(steps=1).array())
        *own_keys, next_key = mx.random.split(opt_state["key"], self.world.size + 1)
        fresh = start(self.metrics)
        done = backward(params, {**opt_state, "key": own_keys[self.world.rank], "metrics": fresh}, part.batch)
        weights = {name: weight * part.counts for name, weight in done.weights.items()}
        totals = {name: mx.where(weights[name] > 0, log * weights[name], 0.0) for name, log in done.logs.items()}
        memory = tree_map(lambda new, old: mx.where(part.counts > 0, new, old), done.opt_state["metrics"], fresh)
        arrays = self._scaled(done.grads, done.rest, weights["loss"])
        got = exchange(self.world, Message(part.flags, totals, weights, arrays, [memory]))
        grads, buffers = tree_map(lambda total: total / _divisor(got.weights["loss"]), got.arrays)
        memory = merged(self.metrics, [opt_state["metrics"], *got.memories])
        logs = {name: Mean(total, got.weights[name]).value for name, total in got.totals.items()}
        received = Pass(
            grads,
            _with_changed(params, done.rest, buffers),
            {**done.opt_state, "key": next_key, "metrics": memory},
            logs,
            dict(got.weights),
        )
        return _with_flags(received, got.flags) if of_a_run else received

    def send(
        self,
        trainable: Params,
        rest: Params,
        flags: Flags,
        figures: Figures | None = None,
        memory: State | None = None,
    ) -> tuple[Flags, Figures, list[State]]:
        """Send a message of the length of a step's, without a step. This waits for the other processes.

        Args:
            trainable: The parameters that train.
            rest: The other parameters and the buffers.
            flags: The flags of this process.
            figures: The total and the weight of each figure.
            memory: The memory of the metrics. Default: that before the first batch.

        Returns:
            `(flags, figures, memories)`: sums over the processes, and the memory of each process.
        """
        zeros = tree_map(mx.zeros_like, {"trainable": trainable, "rest": rest})
        arrays = self._scaled(zeros["trainable"], zeros["rest"], mx.array(0.0))
        memory = start(self.metrics) if memory is None else memory
        received, summed, memories = exchange_figures(self.world, flags.array(), figures or {}, arrays, memory)
        return Flags.of(received), summed, memories

    def _scaled(self, grads: Tree, rest: Params, weight: Array) -> tuple[Tree, dict[str, Array]]:
        """Return gradients and floating buffers, each times a weight, in float32."""
        selected = self.buffers(rest)
        buffers = {
            path: leaf
            for path, leaf in flat(rest).items()
            if selected(path, leaf) and mx.issubdtype(leaf.dtype, mx.floating)
        }
        scaled: tuple[Tree, dict[str, Array]]
        scaled = tree_map(lambda leaf: leaf.astype(mx.float32) * weight, (grads, buffers))
        return scaled


def across(exchange: Exchange) -> Verb:
    """Compute the mean over the rows of all processes. Each process passes its own rows.

    The gradients, the mean of each log, the changed buffers and the memory of the metrics are those of all rows, and
    each process has the same bits of them. They travel in one message of float32. Each process draws random numbers of
    its own, for example for dropout.

    Args:
        exchange: The processes, the metrics of the step, and the buffers of the model.

    Returns:
        A verb. `train_step(across=world)` chains it after all other verbs. For one process it changes nothing.
    """

    def verb(backward: Backward) -> Backward:
        if exchange.world.size == 1:
            return backward
        return lambda params, opt_state, batch: exchange.whole_pass(backward, params, opt_state, batch)

    return verb


def _with_flags(received: Pass, flags: Array) -> Pass:
    """Return a pass with the flags of its message among its logs, for the loop."""
    return received._replace(logs={**received.logs, FLAGS: flags}, weights={**received.weights, FLAGS: mx.array(1.0)})


def _divisor(weight: Array) -> Array:
    """Return a weight as a divisor, 1 where no value counts."""
    return mx.where(weight > 0, weight, 1.0)


def _with_changed(params: Params, rest: Params, means: Mapping[str, Array]) -> Params:
    """Return `rest` with the mean of each buffer that the pass has changed. Other arrays stay the same objects."""
    before = flat(params)

    def mean_of(path: str, leaf: Array) -> Array:
        changed = path in means and leaf is not before[path]
        return means[path].astype(leaf.dtype) if changed else leaf

    averaged: Params = tree_map_with_path(mean_of, rest, path="")
    return averaged
