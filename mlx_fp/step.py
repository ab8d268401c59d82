"""The training step: one compiled pure function of `(params, opt_state, batch)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import jit, metric, rng
from .checks import check_given, check_options, check_parts, check_trainable
from .door import mx, utils
from .forward import Bound, losses
from .metric import Metric
from .nn.layer import Layer
from .optim.apart import apart
from .optim.optimizer import Optimizer, checked
from .optim.state import finite, skips
from .optim.together import sharing
from .select import Select, select
from .structure import as_arrays
from .tree import merge, partition
from .types import Array, Batch, Loss, Params, State, Tree

__all__ = ["EvalStep", "Step", "eval_step", "train_step"]


@dataclass(frozen=True, slots=True)
class Step:
    """`step(params, opt_state, batch) -> (params, opt_state, logs)`, compiled and pure; made by `train_step`.

    `opt_state` holds `key`, the random stream; `optimizer`, its counter, rates and memory; `metrics`, their memory.
    `gradients` and `update` are the two halves, compiled apart.
    """

    model: Layer
    optimizer: Optimizer
    metrics: tuple[Metric, ...]
    chosen: Select
    _whole: jit.Compiled
    _unrolled: jit.Compiled
    _gradients: jit.Compiled
    _update: jit.Compiled

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step on a batch; `logs` holds `loss` and what the loss reports, lazy scalar arrays."""
        result: tuple[Params, State, State] = self._whole(params, opt_state, batch)
        return result

    def unrolled(
        self, params: Params, opt_state: State, batches: Sequence[Batch]
    ) -> tuple[Params, State, tuple[State, ...]]:
        """Take a step on each of some batches in one compiled call, with the logs of each: faster for small models.

        Every number of batches is a trace of its own. Results equal those of single steps to rounding.
        """
        result: tuple[Params, State, tuple[State, ...]] = self._unrolled(params, opt_state, tuple(batches))
        return result

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make `(params, opt_state)`, evaluated, of a seed or key, or around given parameters and `seed`.

        Raise ValueError for given parameters that are not the model's, for parameters of no floating type that are to
        train, for nothing to train, and for parameters that no rule of `groups` matches.
        """
        given = isinstance(start, (dict, list, tuple))
        keys = mx.random.split(rng.key(seed if given else start))
        params = as_arrays(start) if given else self.model.init(keys[0])
        if given:
            check_given(self.model, params)
        kept, _ = partition(trains(self.model, self.chosen, params))(params)
        check_trainable(kept)
        opt_state = {
            "key": keys[1],
            "optimizer": self.optimizer.init(kept),
            "metrics": metric.start(self.metrics),
        }
        mx.eval(params, opt_state)
        return params, opt_state

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        """The first half: `(grads, rest, opt_state, logs)`; `rest` is what does not train, buffers updated."""
        result: tuple[Tree, Params, State, State] = self._gradients(params, opt_state, batch)
        return result

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """The second half: the optimiser's update, `(params, opt_state)`."""
        result: tuple[Params, State] = self._update(params, opt_state, grads, rest)
        return result

    @property
    def traces(self) -> int:
        """How often the step, or its halves, have been traced."""
        return sum(part.traces for part in (self._whole, self._unrolled, self._gradients, self._update))

    def __repr__(self) -> str:
        return f"train_step({self.model.name}, {self.optimizer.name})"


@dataclass(frozen=True, slots=True)
class EvalStep:
    """`step(params, state, batch) -> (state, logs)` in evaluation mode, compiled and pure; made by `eval_step`."""

    metrics: tuple[Metric, ...]
    _whole: jit.Compiled

    def __call__(self, params: Params, state: State, batch: Batch) -> tuple[State, State]:
        """Take one batch into the metrics; `logs` holds `loss` and what the loss reports."""
        result: tuple[State, State] = self._whole(params, state, batch)
        return result

    def init(self) -> State:
        """Return the memory of the metrics before any batch."""
        return metric.start(self.metrics)

    @property
    def traces(self) -> int:
        """How often the step has been traced."""
        return self._whole.traces


def train_step(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    *,
    trainable: Any = None,
    metrics: Sequence[Metric] = (),
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
) -> Step:
    """Make a training step of a model, a loss and an optimiser.

    `loss(forward, **batch)`, `loss(forward, *batch)` or `loss(forward, batch)`, as the batch is a dict, a tuple or list
    or anything else, returns a scalar or `(scalar, dict of scalars)`. `forward` is the model on this step's parameters,
    random stream and mode; it has `.params` and `.train`. `trainable` is a spec that narrows what the model lets train.
    `dtype` computes in another floating type, with parameters and updates in their own.

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
    check_options(compile, dtype)
    folds, chosen = metric.checked(metrics), select(trainable)

    def gradients(params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        kept, rest = partition(trains(model, chosen, params))(params)
        aside: list[Any] = []  # as results of value_and_grad, two equal ones end in an IndexError of mx.compile

        def objective(kept: Params) -> Any:
            forward = Bound(model, merge(kept, rest), True, dtype)
            (value, logs), key = rng.run(opt_state["key"], lambda: losses(loss, forward, batch))
            aside.append((logs, forward.params, forward.output, key))
            return value

        value, grads = mx.value_and_grad(objective)(kept)
        ((logs, after, output, key),) = aside
        _, rest = partition(trains(model, chosen, params))(after)
        memory = metric.fold(folds, opt_state["metrics"], output, batch)
        if skips(opt_state["optimizer"]):
            sound = finite(grads)
            memory = utils.tree_map(lambda new, old: mx.where(sound, new, old), memory, opt_state["metrics"])
        return grads, rest, {**opt_state, "key": key, "metrics": memory}, {"loss": value, **logs}

    def update(params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        kept, before = partition(trains(model, chosen, params))(params)
        kept, memory = optimizer.update(grads, opt_state["optimizer"], kept)
        if skips(memory):
            sound = finite(grads)
            rest = utils.tree_map(lambda new, old: mx.where(sound, new, old), rest, before)
        return merge(kept, rest), {**opt_state, "optimizer": apart(memory)}

    def whole(params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        grads, rest, state, logs = gradients(params, opt_state, batch)
        return *update(params, state, grads, rest), logs

    def unrolled(params: Params, opt_state: State, batches: tuple[Batch, ...]) -> tuple[Params, State, Any]:
        logged = []
        with sharing():
            for batch in batches:
                params, opt_state, logs = whole(params, opt_state, batch)
                logged.append(logs)
        return params, opt_state, tuple(logged)

    def compiled(fn: Callable[..., Any], *names: str) -> jit.Compiled:
        return jit.compiled(fn, *names, compile=compile, title=f"train_step({model.name})", numpy=("batch", "batches"))

    return Step(
        model,
        optimizer,
        folds,
        chosen,
        compiled(whole, "params", "opt_state", "batch"),
        compiled(unrolled, "params", "opt_state", "batches"),
        compiled(gradients, "params", "opt_state", "batch"),
        compiled(update, "params", "opt_state", "grads", "rest"),
    )


def eval_step(
    model: Layer,
    loss: Loss,
    *,
    metrics: Sequence[Metric] = (),
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
) -> EvalStep:
    """Make an evaluation step of a model and a loss: no dropout, no buffer moved, and the same numbers every time.

    >>> from mlx_fp import nn
    >>> step = eval_step(nn.dropout(0.5), lambda model, x: model(x).mean())
    >>> step({}, step.init(), mx.ones((4,)))[1]["loss"].item()
    1.0
    """
    check_parts(model, loss)
    check_options(False, dtype)
    folds = metric.checked(metrics)

    def whole(params: Params, state: State, batch: Batch) -> tuple[State, State]:
        forward = Bound(model, params, False, dtype)
        (value, logs), _ = rng.run(0, lambda: losses(loss, forward, batch))
        return metric.fold(folds, state, forward.output, batch), {"loss": value, **logs}

    names, title = ("params", "state", "batch"), f"eval_step({model.name})"
    return EvalStep(folds, jit.compiled(whole, *names, compile=compile, title=title, numpy=("batch",)))


def trains(model: Layer, chosen: Select, params: Params) -> Select:
    """Choose what trains of a tree: what the model lets train, narrowed."""
    return model.trainable(params) & chosen
