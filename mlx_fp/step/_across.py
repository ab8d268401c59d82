"""The pass over a batch whose rows are divided among processes: the mean over all of them, in one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..across._flags import Flags
from ..across._message import Figures, Message, exchange_figures, from_vector, to_vector
from ..across._world import ALONE, World
from ..compile._compiled import Compiled
from ..compile._evaluation import wait_for
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State, Tree
from ..core.backend import device_backend
from ..task._folds import Metric, merged, start
from ..task._mean import Mean
from ..tree._paths import flat
from ..tree._select import Select, nothing
from ._pass import Backward, Pass

__all__ = ["FLAGS", "Exchange", "Part", "Prepared", "Sent"]

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


class Sent(NamedTuple):
    """A pass over the rows of this process, as its message, and the rest that the pass over all rows needs."""

    vector: Array
    """The message of this process; on arrival the sum of the messages of all."""
    weights: Mapping[str, Array]
    """The weight of each figure in the rows of this process."""
    changed: Mapping[str, Array]
    """The buffers that the pass has changed, by path."""
    opt_state: State
    """The entries of the state that the pass has changed."""
    of_a_run: bool
    """Whether the message has the flags of a run."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange of messages between processes, in and beside steps."""

    world: World = ALONE
    metrics: tuple[Metric, ...] = ()
    buffers: Callable[[Params], Select] = lambda params: nothing
    """`buffers(params)` selects the leaves that are buffers."""
    divide: Callable[[Params], tuple[Params, Params]] = lambda params: (params, {})
    """`divide(params)` divides parameters into the trainable ones and the rest."""

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric.merge is None and self.world.size > 1:
                raise ValueError(
                    f"metric {metric.name!r} has no merge, and the rows are divided among {self.world.size} processes"
                )

    def whole_pass(self, backward: Backward, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the pass over the rows of this process, and exchange it for the pass over all rows.

        The gradients, the mean of each log, the changed buffers and the memory of the metrics are those of all rows.
        Each process has the same bits of them. They travel in one message of float32. Each process draws random numbers
        of its own, for example for dropout. One process sends no message.
        """
        if self.world.size == 1:
            return backward(params, opt_state, batch)
        return self.received(params, opt_state, self.summed(self.sent(backward, params, opt_state, batch)))

    def sent(self, backward: Backward, params: Params, opt_state: State, batch: Batch) -> Sent:
        """Compute the pass over the rows of this process, and its message."""
        of_a_run = isinstance(batch, Part)
        part = batch if of_a_run else Part(batch, mx.array(1.0), Flags(steps=1).array())
        *own_keys, next_key = mx.random.split(opt_state["key"], self.world.size + 1)
        fresh = start(self.metrics)
        done = backward(params, {**opt_state, "key": own_keys[self.world.rank], "metrics": fresh}, part.batch)
        weights = {name: weight * part.counts for name, weight in done.weights.items()}
        totals = {name: mx.where(weights[name] > 0, log * weights[name], 0.0) for name, log in done.logs.items()}
        memory = tree_map(lambda new, old: mx.where(part.counts > 0, new, old), done.opt_state["metrics"], fresh)
        arrays = self._scaled(done.grads, done.rest, weights["loss"])
        before, after = flat(params), {**done.opt_state, "key": next_key, "metrics": memory}
        return Sent(
            to_vector(self.world, Message(part.flags, totals, weights, arrays, [memory])),
            weights,
            {path: leaf for path, leaf in flat(done.rest).items() if leaf is not before[path]},
            {name: entry for name, entry in after.items() if entry is not opt_state.get(name)},
            of_a_run,
        )

    def summed(self, sent: Sent) -> Sent:
        """Send the message of a pass, and receive the sum of the messages of all processes."""
        return sent._replace(vector=self.world.sum(sent.vector))

    def received(self, params: Params, opt_state: State, sent: Sent) -> Pass:
        """Make the pass over all rows of the sum of the messages, from the parameters and the state before the pass."""
        own = Message(Flags().array(), sent.weights, sent.weights, self._zeros(params), [sent.opt_state["metrics"]])
        got = from_vector(self.world, sent.vector, own)
        grads, buffers = tree_map(lambda total: total / _divisor(got.weights["loss"]), got.arrays)
        memory = merged(self.metrics, [opt_state["metrics"], *got.memories])
        logs = {name: Mean(total, got.weights[name]).value for name, total in got.totals.items()}
        received = Pass(
            grads,
            _with_changed(self.divide(params)[1], sent.changed, buffers),
            {**opt_state, **sent.opt_state, "metrics": memory},
            logs,
            dict(got.weights),
        )
        return _with_flags(received, got.flags) if sent.of_a_run else received

    def send(
        self,
        params: Params,
        flags: Flags,
        figures: Figures | None = None,
        memory: State | None = None,
    ) -> tuple[Flags, Figures, list[State]]:
        """Send a message of the length of a step's, without a step. This waits for the other processes.

        Args:
            params: The parameters and buffers of the model.
            flags: The flags of this process.
            figures: The total and the weight of each figure.
            memory: The memory of the metrics. Default: that before the first batch.

        Returns:
            `(flags, figures, memories)`: sums over the processes, and the memory of each process.
        """
        memory, zeros = start(self.metrics) if memory is None else memory, self._zeros(params)
        received, summed, memories = exchange_figures(self.world, flags.array(), figures or {}, zeros, memory)
        return Flags.of(received), summed, memories

    def _zeros(self, params: Params) -> tuple[Tree, dict[str, Array]]:
        """Return zeros in the shapes of the gradients and the floating buffers."""
        trainable, rest = tree_map(mx.zeros_like, self.divide(params))
        return self._scaled(trainable, rest, mx.array(0.0))

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepare the batch of a step for the device and the processes at hand."""

    exchange: Exchange
    sent: Compiled
    """`sent(params, opt_state, batch) -> Sent`: the first of two halves, up to the message."""

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> Batch:
        """Return the batch; where the backend sums apart, the sum of the messages, which is then evaluated."""
        if not self.is_apart():
            return batch
        sent = self.exchange.summed(self.sent(params, opt_state, batch))
        wait_for(sent)
        return sent

    def is_apart(self) -> bool:
        """Tell whether messages are summed between two compiled functions."""
        return self.exchange.world.size > 1 and device_backend().sums_apart


def _with_flags(received: Pass, flags: Array) -> Pass:
    """Return a pass with the flags of its message among its logs, for the loop."""
    return received._replace(logs={**received.logs, FLAGS: flags}, weights={**received.weights, FLAGS: mx.array(1.0)})


def _divisor(weight: Array) -> Array:
    """Return a weight as a divisor, 1 where no value counts."""
    return mx.where(weight > 0, weight, 1.0)


def _with_changed(rest: Params, changed: Mapping[str, Array], means: Mapping[str, Array]) -> Params:
    """Return `rest` with the changed buffers, of which those in `means` are means. Others stay the same objects."""

    def after(path: str, leaf: Array) -> Array:
        if path not in changed:
            return leaf
        return means[path].astype(leaf.dtype) if path in means else changed[path]

    averaged: Params = tree_map_with_path(after, rest, path="")
    return averaged
