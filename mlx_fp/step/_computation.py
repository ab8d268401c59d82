"""The functions of a training step, before they are compiled: passes over batches, gradients, update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toolz import pipe

from ..compile import rng
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..core.backend import in_use
from ..nn._layer import Layer
from ..optim._optimizer import Optimizer
from ..optim._state import finite, finite_or_unchanged, skip_count, skips, stages
from ..task._folds import Metric, fold, start
from ..tree._casting import widened
from ..tree._paths import divided, merge, norm
from ..tree._select import Select
from ._bound_model import Bound, losses, output
from ._carried import Logged
from ._checks import Layout, check_layout, check_memory, check_state, layout
from ._rows import example_count
from .passes import Backward, Pass, Verb, joined

__all__ = ["Computation", "fold_output", "restore_buffers_unless", "split_trainable"]


@dataclass(frozen=True, slots=True)
class Computation:
    """All that a training step is made of; its methods are the pure functions that a step compiles."""

    model: Layer
    loss: Loss
    optimizer: Optimizer
    metrics: tuple[Metric, ...] = ()
    chosen: Select | None = None
    dtype: Any = None
    through: tuple[Verb, ...] = ()
    """The verbs that make the pass of a step from the plain one, the first nearest to the loss."""
    measure: bool = False
    """Whether the norm of the gradients and the learning rate are logged."""
    parameter_bytes: int = 0
    """The size of the model, 0 for a step that is not compiled."""
    known: set[Layout] = field(default_factory=set, compare=False, repr=False)
    """The layouts of the optimiser's state that have been checked, or that it has made itself."""

    def start(self, kept: Params) -> State:
        """Make the state of the optimiser, and of the metrics, before the first step."""
        optimizer = self.optimizer.init(kept)
        self.known.add(layout(optimizer))
        return {"optimizer": optimizer, "metrics": start(self.metrics)}

    def split(self, params: Params) -> tuple[Params, Params]:
        """Divide parameters into those that train and the rest."""
        return split_trainable(self.model, self.chosen, params)

    def backward(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the plain pass over a batch: call the loss, differentiate it, and take the batch into the metrics."""
        kept, rest = self.split(params)
        aside: list[Any] = []  # as results of value_and_grad, two equal arrays crash mx.compile (IndexError)

        def objective(kept: Params) -> Any:
            forward = Bound(self.model, merge(kept, rest), True, self.dtype)
            (logs, weights), key = rng.run(opt_state["key"], lambda: losses(self.loss, forward, batch))
            aside.append((logs, weights, key, forward))
            return logs["loss"]

        value, grads = mx.value_and_grad(objective)(kept)
        ((logs, weights, key, forward),) = aside
        memory = fold_output(self.metrics, opt_state["metrics"], forward, batch)
        state = {**opt_state, "key": key, "metrics": memory}
        return Pass(grads, self.split(forward.params)[1], state, {**logs, "loss": value}, weights)

    def whole_pass(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the pass of the step, through all its verbs."""
        self._check(params, opt_state)
        backward: Backward = pipe(self.backward, *self.through)
        return backward(params, opt_state, batch)

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first half of a step."""
        return self.finished(self.whole_pass(params, opt_state, batch), params, opt_state["metrics"])

    def finished(self, done: Pass, params: Params, metrics: State) -> Pass:
        """Return a pass ready for the update, with gradients in the dtypes of the parameters.

        Where the optimiser skips gradients that are not finite, metrics stay as they were before the pass: `metrics`.
        """
        logs, memory, grads = done.logs, done.opt_state["metrics"], done.grads
        kept, rest = self.split(params)
        if self.measure:
            logs = {**logs, "grad_norm": norm(grads)}
        if skips(done.opt_state["optimizer"]):
            weight = self.model.trainable.leaves(params)
            buffers = finite_or_unchanged(divided(~weight)(done.rest)[0], divided(~weight)(rest)[0])
            grads = utils.tree_map(lambda g: mx.where(buffers, g, mx.nan), grads)  # so that the optimiser skips them
            sound = finite(grads)
            memory = utils.tree_map(lambda new, old: mx.where(sound, new, old), memory, metrics)
        grads = utils.tree_map(lambda p, g: g.astype(p.dtype), kept, grads)
        return done._replace(grads=grads, opt_state={**done.opt_state, "metrics": memory}, logs=logs)

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """Compute the second half of a step, the optimiser's update: `(params, opt_state)`."""
        kept, before = self.split(params)
        kept, memory = in_use().update(self.optimizer.update, grads, opt_state["optimizer"], kept)
        if skips(memory):
            goes = skip_count(memory) == skip_count(opt_state["optimizer"])
            rest = restore_buffers_unless(goes, self.model.trainable.leaves(params), rest, before)
        self.known.add(layout(memory))
        memory = in_use().separate(memory, self.parameter_bytes)
        return merge(kept, rest), {**opt_state, "optimizer": memory}

    def _check(self, params: Params, opt_state: State) -> None:
        """Refuse a state of another step, which costs nothing once its layout is known."""
        check_state(opt_state)
        check_memory([m.name for m in self.metrics], opt_state["metrics"])
        given = layout(opt_state["optimizer"])
        if given not in self.known:
            check_layout(self.optimizer.name, layout(self.optimizer.init(self.split(params)[0])), given)
            self.known.add(given)

    def step(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        """Compute a whole step: `(params, opt_state, (logs, weights, examples))`."""
        done = self.gradients(params, opt_state, batch)
        params, opt_state = self.update(params, done.opt_state, done.grads, done.rest)
        return params, opt_state, (self._measured(done.logs, opt_state), done.weights, example_count(batch))

    def first_pass(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first pass of an update over several batches; its weights are arrays, which retrace nothing."""
        done = self.whole_pass(params, opt_state, batch)
        grads = widened(done.grads)
        weights = {name: mx.array(weight, mx.float32) for name, weight in done.weights.items()}
        return done._replace(grads=grads, weights=weights)

    def next_pass(self, params: Params, before: Pass, batch: Batch) -> Pass:
        """Compute the mean of the passes so far and that over one more batch."""
        weight = self.model.trainable.leaves(params)
        rest = utils.tree_map_with_path(  # weights that do not train are the very arrays, which nothing mixes
            lambda path, new, own: own if weight(path, own) else new, before.rest, self.split(params)[1], path=""
        )
        return joined(before._replace(rest=rest), self.first_pass(params, before.opt_state, batch))

    def close(self, params: Params, done: Pass, metrics: State) -> tuple[Params, State, State, State]:
        """Update on the mean of several passes: `(params, opt_state, logs, weights)`; `metrics` are those before."""
        done = self.finished(done, params, metrics)
        params, opt_state = self.update(params, done.opt_state, done.grads, done.rest)
        return params, opt_state, self._measured(done.logs, opt_state), done.weights

    def _measured(self, logs: State, opt_state: State) -> State:
        """Return the logs of a step with the learning rate of the first optimiser that has one, where it is wanted."""
        rates = [stage["learning_rate"] for _, stage in stages(opt_state["optimizer"]) if "learning_rate" in stage]
        return {**logs, "learning_rate": rates[0] * 1.0} if self.measure and rates else logs


def fold_output(metrics: tuple[Metric, ...], memory: State, forward: Bound, batch: Batch) -> State:
    """Take the outputs of a model on a batch into the memory of each metric."""
    return fold(metrics, memory, output(forward), batch) if metrics else memory


def split_trainable(model: Layer, chosen: Select | None, params: Params) -> tuple[Params, Params]:
    """Divide parameters into those that train, of what the model lets train, and the rest.

    >>> from mlx_fp import flat, nn
    >>> model = nn.freeze("bias")(nn.linear(2, 1))
    >>> kept, rest = split_trainable(model, None, nn.shapes(model))
    >>> list(flat(kept)), list(flat(rest))
    (['weight'], ['bias'])
    """
    trainable = model.trainable(params)
    return divided(trainable if chosen is None else trainable & chosen)(params)


def restore_buffers_unless(sound: Array, weight: Select, rest: Params, before: Params) -> Params:
    """Return buffers as they were unless a step is sound; weights that do not train have not changed anyway."""

    def restored(path: str, new: Array, old: Array) -> Array:
        return old if weight(path, old) else mx.where(sound, new, old)

    kept: Params = utils.tree_map_with_path(restored, rest, before, path="")
    return kept
