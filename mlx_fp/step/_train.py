"""The training step: one compiled pure function of `(params, opt_state, batch)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._mlx import mx
from ..core._options import FLAG
from ..core._options import check_options as check_flags
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..core.backend import device_backend, on_device
from ..nn._freeze import check_spec
from ..nn._layer import Layer, check_given, check_tree, shapes
from ..optim._optimizer import Optimizer, require_optimizer
from ..task import _folds
from ..task._folds import Metric
from ..tree._flattening import as_arrays
from ..tree._paths import leaves
from ..tree._select import select
from ._accumulation import Accumulation
from ._carried import Carried, Carrier, Logged
from ._checks import check_options, check_parts, check_state, check_trainable
from ._computation import Computation
from ._rows import example_count
from .passes import Pass, Verb, abreast, in_parts

__all__ = ["TrainStep", "train_step"]


@dataclass(frozen=True, slots=True)
class TrainStep:
    """`step(params, opt_state, batch) -> (params, opt_state, logs)`, compiled and pure; made by `train_step`.

    `opt_state` holds `key`, the random stream; `optimizer`, its counter, rates and memory; `metrics`, their memory.
    `gradients` and `update` are the two halves, compiled apart; `accumulate` makes one update of several batches.
    """

    computation: Computation
    _whole: Compiled
    _carrier: Carrier
    _gradients: Compiled
    _update: Compiled
    _accumulation: Accumulation

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that each step folds."""
        return self.computation.metrics

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the model's parameters and buffers, 0 for a step that is not compiled."""
        return self.computation.parameter_bytes

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step on a batch; `logs` holds `loss` and the figures of the loss, lazy scalar arrays."""
        params, opt_state, (logs, *_) = self._step(params, opt_state, batch)
        return params, opt_state, logs

    def accumulate(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> tuple[Params, State, State]:
        """Make one update on several batches, as if they were one: gradients and logs are means over all that counts.

        Args:
            params: as for a step.
            opt_state: as for a step.
            batches: one or more batches, of any sizes. Only the activations of one are in memory at a time.

        >>> from mlx_fp import nn, optim
        >>> step = train_step(nn.linear(2, 1, bias=False), lambda model, x: model(x).mean(), optim.sgd(0.1))
        >>> params, opt_state = step.init(0)
        >>> step.accumulate(params, opt_state, [mx.zeros((4, 2)), mx.zeros((3, 2))])[2]["loss"].item()
        0.0
        """
        params, opt_state, (logs, *_) = self.accumulated(params, opt_state, batches)
        return params, opt_state, logs

    def accumulated(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> tuple[Params, State, Logged]:
        """Do as `accumulate`, with the weights of the logs."""
        if not isinstance(batches, (list, tuple)) or not batches:
            raise TypeError("accumulate takes a list of one batch or more")
        check_state(opt_state)
        if len(batches) == 1:
            return self._step(params, opt_state, batches[0])
        return self._accumulation.update(params, opt_state, batches)

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form in which `advance` is fastest on this device.

        On CPUs small arrays of like shape are concatenated. `.params` and `.opt_state` of the result are the trees.
        """
        check_state(opt_state)
        return self._carrier.carry(params, opt_state)

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step on each of some batches in one compiled call; return the logs of each, with weights and examples.

        Every number of batches is a trace of its own. Results equal those of single steps to rounding.
        """
        if not isinstance(state, Carried) or not isinstance(batches, (list, tuple)):
            raise TypeError("advance takes what `step.carry(params, opt_state)` gives, and a list of batches")
        if state.form is None and len(batches) == 1:
            params, opt_state, logged = self._step(state.params, state.opt_state, batches[0])
            return Carried((params, opt_state)), (logged,)
        return self._carrier.advance(state, batches)

    def trainable(self, params: Params) -> Params:
        """Return the parameters that train, in a tree with holes for the others."""
        return self.computation.split(params)[0]

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make `(params, opt_state)`, evaluated, of a seed or key, or around given parameters and `seed`.

        Raise ValueError for given parameters that are not the model's, for parameters of no floating type that are to
        train, for nothing to train, and for parameters that no rule of `groups` matches.
        """
        model, given = self.computation.model, isinstance(start, (dict, list, tuple))
        if hasattr(start, "params"):  # a report, or a checkpoint
            check_tree(start)
        keys = mx.random.split(rng.key(seed if given else start))
        params = as_arrays(start) if given else model.init(keys[0])
        if given:
            check_given(model, params)
        kept, _ = self.computation.split(params)
        check_trainable(kept)
        opt_state = {"key": keys[1], **self.computation.start(kept)}
        mx.eval(params, opt_state)
        return params, opt_state

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first half: `Pass(grads, rest, opt_state, logs, weights)`.

        `rest` are the parameters that do not train, with buffers updated.

        Where the backend waits, for a large model on a CPU, the results come evaluated. Queued operations keep
        references to the old parameters, which would block updates in place.
        """
        waits = self._waits()
        if waits:
            mx.eval(params, opt_state)
        result: Pass = self._gradients(params, opt_state, batch)
        if waits:
            mx.eval(result)
        return result

    def accumulated_gradients(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> Pass:
        """Compute the first half of an update on several batches."""
        if len(batches) == 1:
            return self.gradients(params, opt_state, batches[0])
        return self._accumulation.gradients(params, opt_state, batches)

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """Compute the second half, the optimiser's update: `(params, opt_state)`."""
        result: tuple[Params, State] = self._update(params, opt_state, grads, rest)
        return result

    @property
    def traces(self) -> int:
        """How often the step, or its halves, have been traced."""
        parts = (self._whole, self._carrier, self._gradients, self._update, self._accumulation)
        return sum(part.traces for part in parts)

    def _step(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        if self._waits():
            grads, rest, opt_state, logs, weights = self.gradients(params, opt_state, batch)
            return *self.update(params, opt_state, grads, rest), (logs, weights, example_count(batch))
        result: tuple[Params, State, Logged] = self._whole(params, opt_state, batch)
        return result

    def _waits(self) -> bool:
        return device_backend().waits(self.parameter_bytes)

    def __repr__(self) -> str:
        return f"train_step({self.computation.model.name}, {self.computation.optimizer.name})"


def train_step(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    *,
    trainable: Any = None,
    metrics: Sequence[Metric] = (),
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
    parts: int = 1,
    streams: int = 1,
    through: Sequence[Verb] = (),
    measure: bool = False,
) -> TrainStep:
    """Make a training step of a model, a loss and an optimiser.

    `loss(forward, **batch)`, `loss(forward, *batch)` or `loss(forward, batch)`, as the batch is a dict, a tuple or list
    or anything else, returns a scalar, which is a mean over the rows of the batch, or a `Mean`, alone or with a dict of
    further ones: `(loss, {"name": figure})`. `forward` is the model on this step's parameters, random stream and mode;
    it has `.params` and `.train`.

    Args:
        model: the Layer to train.
        loss: a function of the model and a batch.
        optimizer: makes updates of gradients.
        trainable: a spec that narrows which parameters train, of those that the model lets train; KeyError where it
            matches none, unless it is a `select(spec, strict=False)`.
        metrics: folds over the model's outputs, computed inside the step.
        compile: False runs the step uncompiled; a mapping holds options of `mx.compile`.
        dtype: a floating type to compute in, such as `mx.bfloat16`. Parameters and updates keep their own.
        parts: into how many parts to cut each batch by rows, one computed after the other: less memory.
        streams: into how many parts to cut each batch by rows, which a CPU computes side by side. Take such steps
            within `fp.cpu.tuned(streams=…)`; `fit` does.
        through: verbs of `fp.passes`, which make the pass of a step from the plain one; the first is nearest to the
            loss.
        measure: whether `logs` hold the norm of the gradients before clipping, as `grad_norm`, and `learning_rate`.

    >>> from mlx_fp import nn, optim
    >>> step = train_step(nn.linear(1, 1), lambda model, x, y: nn.losses.mse_loss(model(x), y), optim.sgd(0.1))
    >>> params, opt_state = step.init(0)
    >>> x = mx.array([[0.0], [1.0]])
    >>> for _ in range(200):
    ...     params, opt_state, logs = step(params, opt_state, (x, 2 * x + 1))
    >>> logs["loss"].item() < 1e-3, step.traces
    (True, 1)
    """
    check_parts(model, loss)
    require_optimizer(optimizer, "a step")
    check_options(compile, dtype, parts=parts, streams=streams)
    check_flags("train_step", {"measure": measure}, {"measure": FLAG})
    folds, chosen = _folds.checked(metrics), select(trainable)
    check_spec(chosen, model)
    size = sum(leaf.nbytes for leaf in leaves(shapes(model))) if compile is not False else 0
    short = [verb(count) for verb, count in ((abreast, streams), (in_parts, parts)) if count > 1]
    work = Computation(model, loss, optimizer, folds, chosen, dtype, (*short, *through), measure, size)

    def build(fn: Callable[..., Any], *names: str) -> Compiled:
        title = f"train_step({model.name})"
        return compiled(on_device(fn), *names, compile=compile, title=title, numpy=("batch", "batches"))

    return TrainStep(
        work,
        build(work.step, "params", "opt_state", "batch"),
        Carrier(work.step, lambda params: work.split(params)[0], work.parameter_bytes, build),
        build(work.gradients, "params", "opt_state", "batch"),
        build(work.update, "params", "opt_state", "grads", "rest"),
        Accumulation(
            build(work.first_pass, "params", "opt_state", "batch"),
            build(work.next_pass, "params", "before", "batch"),
            build(work.finished, "done", "params", "metrics"),
            build(work.close, "params", "done", "metrics"),
        ),
    )
