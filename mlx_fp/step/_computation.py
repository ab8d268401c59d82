"""The pure functions of a training step, before they are compiled: the pass over a batch, the gradients, the update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from toolz import pipe

from ..compile import rng
from ..compile._recomputed import awaiting
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..core.backend import in_use
from ..nn._layer import Layer
from ..optim._optimizer import Optimizer
from ..optim._state import finite, finite_or_unchanged, skip_count, skips, stages
from ..task._folds import Metric, fold, start
from ..tree._casting import widened
from ..tree._paths import divided, flat, merge, norm
from ..tree._select import Select
from ._across import Exchange, Sent
from ._bound_model import BoundModel, call_loss, last_output
from ._carried import Logged
from ._checks import Layout, check_layout, check_memory, check_state, layout
from ._enclosing import check_accumulation
from ._in_backward import Updates
from ._objective import objective_of
from ._rows import example_count
from .passes import Backward, Pass, Verb, joined

__all__ = ["Computation", "fold_output", "restore_buffers_unless", "split_trainable"]

_OTHER_NUMBERS = (
    "the gradient drew random numbers that the loss had not drawn, so it would be the gradient of another loss: "
    "mx.checkpoint recomputed a part with dropout. Switch off the checkpointing of the module, and use nn.remat(spec), "
    'which draws the same numbers, for example nn.remat("layers")(model)'
)


@dataclass(frozen=True, slots=True)
class Computation:
    """The parts of a training step. Its methods are the pure functions that a step compiles."""

    model: Layer
    loss: Loss
    optimizer: Optimizer
    metrics: tuple[Metric, ...] = ()
    chosen: Select | None = None
    dtype: mx.Dtype | None = None
    through: tuple[Verb, ...] = ()
    """The verbs that make the pass of the step from the plain pass. The first is nearest to the loss."""
    measure: bool = False
    """Whether the logs hold the norm of the gradients and the learning rate."""
    parameter_bytes: int = 0
    """The bytes of the parameters that train. It is 0 for a step that is not compiled."""
    exchange: Exchange = field(default_factory=Exchange)
    """The exchange of messages with other processes."""
    in_backward: bool = False
    """Whether each parameter is updated as soon as its gradient is there."""
    checked_layouts: set[Layout] = field(default_factory=set, compare=False, repr=False)
    """The layouts of the optimiser's state that have been checked, or that the optimiser itself has made."""

    def start(self, trainable: Params) -> State:
        """Make the state of the optimiser and of the metrics before the first step."""
        optimizer = self.optimizer.init(trainable)
        self.checked_layouts.add(layout(optimizer))
        return {"optimizer": optimizer, "metrics": start(self.metrics)}

    def split(self, params: Params) -> tuple[Params, Params]:
        """Divide parameters into the trainable ones and the rest."""
        return split_trainable(self.model, self.chosen, params)

    def backward(
        self,
        params: Params,
        opt_state: State,
        batch: Batch,
        observing: Callable[[Params], Params] = lambda trainable: trainable,
    ) -> Pass:
        """Compute the plain pass over a batch: call the loss, differentiate it, and update the metrics.

        `observing` returns the parameters that the loss gets.
        """
        trainable, rest = self.split(params)
        results = []  # not results of value_and_grad: two equal arrays there crash mx.compile (IndexError)

        def objective(trainable: Params) -> Array:
            paths = frozenset(flat(trainable))
            forward = BoundModel(self.model, merge(observing(trainable), rest), True, self.dtype, paths)
            (logs, weights), key = rng.run(opt_state["key"], lambda: call_loss(self.loss, forward, batch))
            logs, weights = objective_of(opt_state, logs, weights)
            results.append((logs, weights, key, forward))
            loss: Array = logs["loss"]
            return loss

        start = rng.position()
        value, grads = mx.value_and_grad(objective)(trainable)
        if rng.has_moved():
            rng.move_to(start)
            raise ValueError(_OTHER_NUMBERS)
        ((logs, weights, key, forward),) = results
        memory = fold_output(self.metrics, opt_state["metrics"], forward, batch)
        state = {**opt_state, "key": key, "metrics": memory}
        return Pass(grads, self.split(forward.params)[1], state, {**logs, "loss": value}, weights)

    def check_accumulation(self) -> None:
        """Raise ValueError where no update on several batches is possible."""
        if self.in_backward:
            raise ValueError('update="in_backward" updates on the gradients of one batch; accumulate takes several')
        check_accumulation(self.through)

    def whole_pass(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the pass of the step, with all its verbs, over the rows of all processes.

        In the place of a batch may be the sum of the messages of the processes: the pass over their rows is then there.
        """
        self._check_state(params, opt_state)
        if isinstance(batch, Sent):
            return self.exchange.received(params, opt_state, batch)
        backward: Backward = pipe(self.backward, *self.through)
        return self.exchange.whole_pass(backward, params, opt_state, batch)

    def sent(self, params: Params, opt_state: State, batch: Batch) -> Sent:
        """Compute the pass over the rows of this process, and its message to the others."""
        self._check_state(params, opt_state)
        backward: Backward = pipe(self.backward, *self.through)
        return self.exchange.sent(backward, params, opt_state, batch)

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first half of a step."""
        return self.finish_pass(self.whole_pass(params, opt_state, batch), params, opt_state["metrics"])

    def finish_pass(self, done: Pass, params: Params, metrics: State) -> Pass:
        """Return a pass ready for the update, with gradients in the dtypes of the parameters.

        `metrics` is the memory of the metrics before the pass. Where the optimiser skips gradients that are not finite,
        such a pass keeps that memory.
        """
        logs, memory, grads = done.logs, done.opt_state["metrics"], done.grads
        trainable, rest = self.split(params)
        if self.measure:
            logs = {**logs, "grad_norm": norm(grads)}
        if skips(done.opt_state["optimizer"]):
            weight = self.model.trainable.leaves(params)
            buffers_sound = finite_or_unchanged(divided(~weight)(done.rest)[0], divided(~weight)(rest)[0])
            grads = utils.tree_map(lambda g: mx.where(buffers_sound, g, mx.nan), grads)  # the optimiser skips NaN
            sound = finite(grads)
            memory = utils.tree_map(lambda new, old: mx.where(sound, new, old), memory, metrics)
        grads = utils.tree_map(lambda p, g: g.astype(p.dtype), trainable, grads)
        return done._replace(grads=grads, opt_state={**done.opt_state, "metrics": memory}, logs=logs)

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """Compute the second half of a step, the update of the optimiser: `(params, opt_state)`."""
        trainable, rest_before = self.split(params)
        trainable, memory = in_use().update(self.optimizer.update, grads, opt_state["optimizer"], trainable)
        if skips(memory):
            updated = skip_count(memory) == skip_count(opt_state["optimizer"])
            rest = restore_buffers_unless(updated, self.model.trainable.leaves(params), rest, rest_before)
        self.checked_layouts.add(layout(memory))
        memory = in_use().separate(memory, self.parameter_bytes)
        return merge(trainable, rest), {**opt_state, "optimizer": memory}

    def _check_state(self, params: Params, opt_state: State) -> None:
        """Refuse a state of another step. The check is free once a layout has been checked."""
        check_state(opt_state)
        check_memory([m.name for m in self.metrics], opt_state["metrics"])
        state_layout = layout(opt_state["optimizer"])
        if state_layout not in self.checked_layouts:
            expected = layout(self.optimizer.init(self.split(params)[0]))
            check_layout(self.optimizer.name, expected, state_layout)
            self.checked_layouts.add(state_layout)

    def step(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        """Compute a whole step: `(params, opt_state, (logs, weights, examples))`."""
        if self.in_backward:
            return self._step_in_backward(params, opt_state, batch)
        done = self.gradients(params, opt_state, batch)
        params, opt_state = self.update(params, done.opt_state, done.grads, done.rest)
        return params, opt_state, (self._with_rate(done.logs, opt_state), done.weights, example_count(batch))

    def _step_in_backward(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        """Compute a whole step, and update each parameter as soon as its gradient is there."""
        self._check_state(params, opt_state)
        updates = Updates(self.optimizer, opt_state["optimizer"], self.split(params)[0])
        done = awaiting(lambda: self.backward(params, opt_state, batch, updates.observing))
        logs = {**done.logs, "grad_norm": norm(done.grads)} if self.measure else done.logs
        trainable, memory = updates.finish(done.grads)
        self.checked_layouts.add(layout(memory))
        opt_state = {**done.opt_state, "optimizer": in_use().separate(memory, self.parameter_bytes)}
        return (
            merge(trainable, done.rest),
            opt_state,
            (self._with_rate(logs, opt_state), done.weights, example_count(batch)),
        )

    def first_pass(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first pass of an update on several batches.

        Its weights are arrays, because a weight that is a Python number would cause a new trace.
        """
        done = self.whole_pass(params, opt_state, batch)
        grads = widened(done.grads)
        weights = {name: mx.array(weight, mx.float32) for name, weight in done.weights.items()}
        return done._replace(grads=grads, weights=weights)

    def next_pass(self, params: Params, before: Pass, batch: Batch) -> Pass:
        """Compute the mean of the passes so far, `before`, and of the pass over one more batch."""
        weight = self.model.trainable.leaves(params)
        rest = utils.tree_map_with_path(  # a frozen weight is the same array in both passes, so `joined` keeps it
            lambda path, new, old: old if weight(path, old) else new, before.rest, self.split(params)[1], path=""
        )
        return joined(before._replace(rest=rest), self.first_pass(params, before.opt_state, batch))

    def close(self, params: Params, done: Pass, metrics: State) -> tuple[Params, State, State, State]:
        """Update on the mean of several passes: `(params, opt_state, logs, weights)`.

        `metrics` is the memory of the metrics before the passes.
        """
        done = self.finish_pass(done, params, metrics)
        params, opt_state = self.update(params, done.opt_state, done.grads, done.rest)
        return params, opt_state, self._with_rate(done.logs, opt_state), done.weights

    def _with_rate(self, logs: State, opt_state: State) -> State:
        """With `measure`, add the learning rate of the first optimiser that has one to the logs of a step."""
        rates = [stage["learning_rate"] for _, stage in stages(opt_state["optimizer"]) if "learning_rate" in stage]
        return {**logs, "learning_rate": rates[0] * 1.0} if self.measure and rates else logs


def fold_output(metrics: tuple[Metric, ...], memory: State, forward: BoundModel, batch: Batch) -> State:
    """Update the memory of each metric with the outputs of a model on a batch."""
    return fold(metrics, memory, last_output(forward), batch) if metrics else memory


def split_trainable(model: Layer, chosen: Select | None, params: Params) -> tuple[Params, Params]:
    """Divide parameters into the trainable ones and the rest.

    `chosen` narrows the parameters that the model lets train.

    >>> from mlx_fp import flat, nn
    >>> model = nn.freeze("bias")(nn.linear(2, 1))
    >>> trainable, rest = split_trainable(model, None, nn.shapes(model))
    >>> list(flat(trainable)), list(flat(rest))
    (['weight'], ['bias'])
    """
    trainable = model.trainable(params)
    return divided(trainable if chosen is None else trainable & chosen)(params)


def restore_buffers_unless(sound: Array, weight: Select, rest: Params, before: Params) -> Params:
    """Return the buffers of `before` unless a step is sound. Frozen weights, which `weight` selects, never change."""

    def restored(path: str, new: Array, old: Array) -> Array:
        return old if weight(path, old) else mx.where(sound, new, old)

    buffers: Params = utils.tree_map_with_path(restored, rest, before, path="")
    return buffers
