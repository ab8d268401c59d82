"""The functions of a training step, before they are compiled: backward pass, gradients, update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ..compile import rng
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..core.backend import in_use
from ..nn._layer import Layer
from ..optim._optimizer import Optimizer
from ..optim._state import finite, skips
from ..task._folds import Metric, fold
from ..tree._paths import merge, partition
from ..tree._select import Select
from ._bound_model import Bound, losses, output
from ._checks import check_state
from ._parts import mean, mean_logs, run_parts, split_batch, split_key

__all__ = ["Computation", "restore_buffers_unless", "split_trainable"]


@dataclass(frozen=True, slots=True)
class Computation:
    """All that a training step is made of; its methods are the pure functions that a step compiles.

    `parameter_bytes` is the size of the model, 0 for a step that is not compiled. `streams` is how many parts of a
    batch are computed side by side.
    """

    model: Layer
    loss: Loss
    optimizer: Optimizer
    metrics: tuple[Metric, ...] = ()
    chosen: Select | None = None
    dtype: Any = None
    streams: int = 1
    parameter_bytes: int = 0

    def split(self, params: Params) -> tuple[Params, Params]:
        """Divide parameters into those that train and the rest."""
        return split_trainable(self.model, self.chosen, params)

    def backward(self, params: Params, key: Array, batch: Batch) -> tuple[Tree, Params, State, Array, Any]:
        """Differentiate the loss: `(grads, rest, logs, key, output)`; `rest` are the parameters that do not train."""
        kept, rest = self.split(params)
        aside: list[Any] = []  # as results of value_and_grad, two equal arrays crash mx.compile (IndexError)

        def objective(kept: Params) -> Any:
            forward = Bound(self.model, merge(kept, rest), True, self.dtype)
            (value, logs), after = rng.run(key, lambda: losses(self.loss, forward, batch))
            aside.append((logs, forward.params, after, output(forward)))
            return value

        value, grads = mx.value_and_grad(objective)(kept)
        ((logs, params, key, last),) = aside
        return grads, self.split(params)[1], {"loss": value, **logs}, key, last

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        """Compute the first half of a step, over the parts of a batch: `(grads, rest, opt_state, logs)`."""
        check_state(opt_state)
        parts, shares = split_batch(batch, self.streams)
        each = zip(split_key(opt_state["key"], len(parts)), parts, strict=True)
        passes = run_parts([partial(self.backward, params, key, part) for key, part in each])
        many, rests, logs, (key, *_), outputs = zip(*passes, strict=True)
        grads, memory = mean(many, shares), fold(self.metrics, opt_state["metrics"], outputs, parts)
        if skips(opt_state["optimizer"]):
            sound = finite(grads)
            memory = utils.tree_map(lambda new, old: mx.where(sound, new, old), memory, opt_state["metrics"])
        return grads, mean(rests, shares), {**opt_state, "key": key, "metrics": memory}, mean_logs(logs, shares)

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """Compute the second half of a step, the optimiser's update: `(params, opt_state)`."""
        kept, before = self.split(params)
        kept, memory = in_use().update(self.optimizer.update, grads, opt_state["optimizer"], kept)
        if skips(memory):
            rest = restore_buffers_unless(finite(grads), self.model.trainable.leaves(params), rest, before)
        memory = in_use().separate(memory, self.parameter_bytes)
        return merge(kept, rest), {**opt_state, "optimizer": memory}

    def step(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Compute a whole step: `(params, opt_state, logs)`."""
        grads, rest, state, logs = self.gradients(params, opt_state, batch)
        return *self.update(params, state, grads, rest), logs


def split_trainable(model: Layer, chosen: Select | None, params: Params) -> tuple[Params, Params]:
    """Divide parameters into those that train, of what the model lets train, and the rest.

    >>> from mlx_fp import flat, nn
    >>> model = nn.freeze("bias")(nn.linear(2, 1))
    >>> kept, rest = split_trainable(model, None, nn.shapes(model))
    >>> list(flat(kept)), list(flat(rest))
    (['weight'], ['bias'])
    """
    trainable = model.trainable(params)
    return partition(trainable if chosen is None else trainable & chosen)(params)


def restore_buffers_unless(sound: Array, weight: Select, rest: Params, before: Params) -> Params:
    """Return buffers as they were unless a step is sound; weights that do not train have not changed anyway."""

    def restored(path: str, new: Array, old: Array) -> Array:
        return old if weight(path, old) else mx.where(sound, new, old)

    kept: Params = utils.tree_map_with_path(restored, rest, before, path="")
    return kept
