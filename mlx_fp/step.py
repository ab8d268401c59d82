"""The training step: one compiled pure function of `(params, opt_state, batch)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import call, jit, metric, rng
from .door import mx, utils
from .metric import Metric
from .nn.layer import Layer
from .optim.optimizer import Optimizer
from .optim.wrap import went_through
from .select import Select, select
from .tree import copied, flat, merge, partition
from .types import Array, Batch, Loss, Params, State, Tree

__all__ = ["EvalStep", "Step", "eval_step", "train_step"]

tree_map, tree_map_with_path = utils.tree_map, utils.tree_map_with_path


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
    _gradients: jit.Compiled
    _update: jit.Compiled

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step on a batch; `logs` holds `loss` and what the loss reports, lazy scalar arrays."""
        result: tuple[Params, State, State] = self._whole(params, opt_state, as_arrays(batch))
        return result

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make `(params, opt_state)`, evaluated, of a seed or key, or around given parameters and `seed`.

        Raise ValueError for parameters of no floating type that are to train, for nothing to train, and for parameters
        that no rule of `groups` matches.
        """
        given = isinstance(start, (dict, list, tuple))
        keys = mx.random.split(rng.key(seed if given else start))
        params = copied(start) if given else self.model.init(keys[0])
        kept, _ = partition(trains(self.model, self.chosen, params))(params)
        _check(kept)
        opt_state = {
            "key": keys[1],
            "optimizer": self.optimizer.init(kept),
            "metrics": metric.start(self.metrics),
        }
        mx.eval(params, opt_state)
        return params, opt_state

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        """The first half: `(grads, rest, opt_state, logs)`; `rest` is what does not train, buffers updated."""
        result: tuple[Tree, Params, State, State] = self._gradients(params, opt_state, as_arrays(batch))
        return result

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """The second half: the optimiser's update, `(params, opt_state)`."""
        result: tuple[Params, State] = self._update(params, opt_state, grads, rest)
        return result

    @property
    def traces(self) -> int:
        """How often the step, or its halves, have been traced."""
        return self._whole.traces + self._gradients.traces + self._update.traces

    def __repr__(self) -> str:
        return f"train_step({self.model.name}, {self.optimizer.name})"


@dataclass(frozen=True, slots=True)
class EvalStep:
    """`step(params, state, batch) -> (state, logs)` in evaluation mode, compiled and pure; made by `eval_step`."""

    metrics: tuple[Metric, ...]
    _whole: jit.Compiled

    def __call__(self, params: Params, state: State, batch: Batch) -> tuple[State, State]:
        """Take one batch into the metrics; `logs` holds `loss` and what the loss reports."""
        result: tuple[State, State] = self._whole(params, state, as_arrays(batch))
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
    _check_parts(model, loss, optimizer)
    folds, chosen = metric.checked(metrics), select(trainable)

    def gradients(params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        kept, rest = partition(trains(model, chosen, params))(params)

        def objective(kept: Params) -> Any:
            forward = _Forward(model, merge(kept, rest), True, dtype)
            (value, logs), key = rng.run(opt_state["key"], lambda: _losses(loss, forward, batch, dtype))
            return value, (logs, forward.params, forward.output, key)

        (value, (logs, after, output, key)), grads = mx.value_and_grad(objective)(kept)
        _, rest = partition(trains(model, chosen, params))(after)
        memory = metric.fold(folds, opt_state["metrics"], output, batch)
        return grads, rest, {**opt_state, "key": key, "metrics": memory}, {"loss": value, **logs}

    def update(params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        kept, before = partition(trains(model, chosen, params))(params)
        kept, memory = optimizer.update(grads, opt_state["optimizer"], kept)
        through = went_through(opt_state["optimizer"], memory)
        if through is not None:
            rest = tree_map(lambda new, old: mx.where(through, new, old), rest, before)
        return merge(kept, rest), {**opt_state, "optimizer": memory}

    def whole(params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        grads, rest, state, logs = gradients(params, opt_state, batch)
        return *update(params, state, grads, rest), logs

    names, title = ("params", "opt_state", "batch"), f"train_step({model.name})"
    return Step(
        model,
        optimizer,
        folds,
        chosen,
        jit.compiled(whole, *names, compile=compile, title=title),
        jit.compiled(gradients, *names, compile=compile, title=title),
        jit.compiled(update, "params", "opt_state", "grads", "rest", compile=compile, title=title),
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
    _check_parts(model, loss, None)
    folds = metric.checked(metrics)

    def whole(params: Params, state: State, batch: Batch) -> tuple[State, State]:
        forward = _Forward(model, params, False, dtype)
        (value, logs), _ = rng.run(0, lambda: _losses(loss, forward, batch, dtype))
        return metric.fold(folds, state, forward.output, batch), {"loss": value, **logs}

    names = ("params", "state", "batch")
    return EvalStep(folds, jit.compiled(whole, *names, compile=compile, title=f"eval_step({model.name})"))


def trains(model: Layer, chosen: Select, params: Params) -> Select:
    """Choose what trains of a tree: what the model lets train, narrowed."""
    return model.trainable(params) & chosen


def as_arrays(batch: Batch) -> Batch:
    """Take the numpy arrays of a batch as mlx arrays; everything else stays."""
    if isinstance(batch, mx.array):
        return batch
    if isinstance(batch, dict):
        return {key: as_arrays(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        items = [as_arrays(value) for value in batch]
        if isinstance(batch, list):
            return items
        return type(batch)(*items) if hasattr(batch, "_fields") else tuple(items)
    return mx.array(batch) if hasattr(batch, "__array__") else batch


class _Forward:
    """The model during one step; keeps the buffers that each call hands back, and the last output."""

    __slots__ = ("_dtype", "_model", "output", "params", "train")

    def __init__(self, model: Layer, params: Params, train: bool, dtype: Any) -> None:
        self._model, self._dtype = model, dtype
        self.params, self.train, self.output = params, train, None

    def __call__(self, *xs: Any, **kw: Any) -> Any:
        """Run the model, in the random stream of the step."""
        weight = self._model.trainable.leaves(self.params)

        def narrow(path: str, leaf: Array) -> Array:
            return _cast(leaf, self._dtype) if weight(path, leaf) else leaf

        def kept(path: str, after: Array, before: Array) -> Array:
            return before if weight(path, before) else after.astype(before.dtype)

        inside = tree_map_with_path(narrow, self.params)
        self.output, after = self._model.apply(inside, *xs, train=self.train, **kw)
        self.params = tree_map_with_path(kept, after, self.params)
        return self.output


def _losses(loss: Loss, forward: _Forward, batch: Batch, dtype: Any) -> tuple[Array, State]:
    result = call.spread(loss, forward, _cast(batch, dtype), "loss")
    value, logs = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    for name, scalar in {"loss": value, **(logs if isinstance(logs, dict) else {"its second value": logs})}.items():
        if not isinstance(scalar, mx.array) or scalar.ndim != 0:
            got = f"an array of shape {scalar.shape}" if isinstance(scalar, mx.array) else type(scalar).__name__
            raise TypeError(f"a loss returns a scalar array, or (scalar, dict of scalars); {name} is {got}: mean() it?")
    return value.astype(mx.float32), logs


def _cast(tree: Tree, dtype: Any) -> Tree:
    """Take the floating arrays of a tree in another floating type, None being their own."""
    if dtype is None:
        return tree

    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.floating) else leaf

    return tree_map(cast, tree)


def _check(kept: Params) -> None:
    named = flat(kept)
    if not named:
        raise ValueError("nothing trains: every parameter is frozen, a buffer, or outside `trainable`")
    odd = [f"{path} ({leaf.dtype})" for path, leaf in named.items() if not mx.issubdtype(leaf.dtype, mx.floating)]
    if odd:
        raise ValueError(f"only floating parameters can train; freeze {', '.join(odd)}")


def _check_parts(model: Any, loss: Any, optimizer: Any) -> None:
    if not isinstance(model, Layer):
        raise TypeError(f"a step takes a Layer as model; got {type(model).__name__}: lift or split it")
    if not callable(loss):
        raise TypeError(f"a step takes a function as loss; got {loss!r}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"a step takes an Optimizer; got {type(optimizer).__name__}: optim.lift it")
