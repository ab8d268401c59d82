"""The training step: one compiled pure function of `(params, opt_state, batch)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._mlx import mx
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..core.backend import device_backend, on_device
from ..nn._layer import Layer, check_given, shapes
from ..optim._optimizer import Optimizer, checked
from ..task import _folds
from ..task._folds import Metric
from ..tree._flattening import as_arrays
from ..tree._paths import leaves
from ..tree._select import select
from ._carried import Carried, Carrier
from ._checks import check_options, check_parts, check_state, check_trainable
from ._computation import Computation

__all__ = ["Step", "train_step"]


@dataclass(frozen=True, slots=True)
class Step:
    """`step(params, opt_state, batch) -> (params, opt_state, logs)`, compiled and pure; made by `train_step`.

    `opt_state` holds `key`, the random stream; `optimizer`, its counter, rates and memory; `metrics`, their memory.
    `gradients` and `update` are the two halves, compiled apart.
    """

    computation: Computation
    _whole: Compiled
    _carrier: Carrier
    _gradients: Compiled
    _update: Compiled

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that each step folds."""
        return self.computation.metrics

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the model's parameters and buffers, 0 for a step that is not compiled."""
        return self.computation.parameter_bytes

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step on a batch; `logs` holds `loss` and what the loss reports, lazy scalar arrays."""
        if self._waits():
            grads, rest, opt_state, logs = self.gradients(params, opt_state, batch)
            return *self.update(params, opt_state, grads, rest), logs
        result: tuple[Params, State, State] = self._whole(params, opt_state, batch)
        return result

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form in which `advance` is fastest on this device.

        On CPUs small arrays of like shape are concatenated. `.params` and `.opt_state` of the result are the trees.
        """
        check_state(opt_state)
        return self._carrier.carry(params, opt_state)

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[State, ...]]:
        """Take a step on each of some batches in one compiled call, and return the logs of each.

        Every number of batches is a trace of its own. Results equal those of single steps to rounding.
        """
        if not isinstance(state, Carried) or not isinstance(batches, (list, tuple)):
            raise TypeError("advance takes what `step.carry(params, opt_state)` gives, and a list of batches")
        if state.form is None and len(batches) == 1:
            params, opt_state, logs = self(state.params, state.opt_state, batches[0])
            return Carried((params, opt_state)), (logs,)
        return self._carrier.advance(state, batches)

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make `(params, opt_state)`, evaluated, of a seed or key, or around given parameters and `seed`.

        Raise ValueError for given parameters that are not the model's, for parameters of no floating type that are to
        train, for nothing to train, and for parameters that no rule of `groups` matches.
        """
        model, given = self.computation.model, isinstance(start, (dict, list, tuple))
        if not given and hasattr(start, "params"):
            kind = type(start).__name__
            raise TypeError(f"a step starts from a seed, a key or parameters; of this {kind}, `.params`")
        keys = mx.random.split(rng.key(seed if given else start))
        params = as_arrays(start) if given else model.init(keys[0])
        if given:
            check_given(model, params)
        kept, _ = self.computation.split(params)
        check_trainable(kept)
        optimizer = self.computation.optimizer.init(kept)
        opt_state = {"key": keys[1], "optimizer": optimizer, "metrics": _folds.start(self.metrics)}
        mx.eval(params, opt_state)
        return params, opt_state

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        """The first half: `(grads, rest, opt_state, logs)`; `rest` is what does not train, buffers updated.

        Where the backend waits, for a large model on a CPU, the results come evaluated. Queued operations keep
        references to the old parameters, which would block updates in place.
        """
        waits = self._waits()
        if waits:
            mx.eval(params, opt_state)
        result: tuple[Tree, Params, State, State] = self._gradients(params, opt_state, batch)
        if waits:
            mx.eval(result)
        return result

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """The second half: the optimiser's update, `(params, opt_state)`."""
        result: tuple[Params, State] = self._update(params, opt_state, grads, rest)
        return result

    @property
    def traces(self) -> int:
        """How often the step, or its halves, have been traced."""
        return sum(part.traces for part in (self._whole, self._carrier, self._gradients, self._update))

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
    streams: int = 1,
) -> Step:
    """Make a training step of a model, a loss and an optimiser.

    `loss(forward, **batch)`, `loss(forward, *batch)` or `loss(forward, batch)`, as the batch is a dict, a tuple or list
    or anything else, returns a scalar or `(scalar, dict of scalars)`. `forward` is the model on this step's parameters,
    random stream and mode; it has `.params` and `.train`.

    Args:
        model: what is trained, a Layer.
        loss: a function of the model and a batch.
        optimizer: makes updates of gradients.
        trainable: a spec that narrows which parameters train, of those that the model lets train.
        metrics: folds over the model's outputs, computed inside the step.
        compile: False runs the step uncompiled; a mapping holds options of `mx.compile`.
        dtype: a floating type to compute in, such as `mx.bfloat16`. Parameters and updates keep their own.
        streams: into how many parts to divide each batch by rows, which a CPU computes side by side. For losses that
            are means over rows. Take such steps within `fp.cpu.tuned(streams=…)`; `fit` does.

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
    checked(optimizer, "a step")
    check_options(compile, dtype, streams)
    folds, chosen = _folds.checked(metrics), select(trainable)
    size = sum(leaf.nbytes for leaf in leaves(shapes(model))) if compile is not False else 0
    work = Computation(model, loss, optimizer, folds, chosen, dtype, streams, size)

    def build(fn: Callable[..., Any], *names: str) -> Compiled:
        title = f"train_step({model.name})"
        return compiled(on_device(fn), *names, compile=compile, title=title, numpy=("batch", "batches"))

    return Step(
        work,
        build(work.step, "params", "opt_state", "batch"),
        Carrier(work.step, lambda params: work.split(params)[0], work.parameter_bytes, build),
        build(work.gradients, "params", "opt_state", "batch"),
        build(work.update, "params", "opt_state", "grads", "rest"),
    )
