"""The training step: one compiled pure function of `(params, opt_state, batch)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ..compile import _compiled as jit
from ..compile import rng
from ..core._mlx import mx, on_cpu, utils
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..cpu._cache import keep
from ..cpu._in_place import apart
from ..cpu._native import engaged as native
from ..nn._layer import Layer, check_given, shapes
from ..optim._optimizer import Optimizer, checked
from ..optim._state import finite, skips
from ..task import _folds as metric
from ..task._folds import Metric
from ..tree._flattening import as_arrays
from ..tree._paths import leaves, merge, partition
from ..tree._select import Select, select
from ._bound_model import Bound, losses, output
from ._carried import Packed, Packing
from ._checks import check_options, check_parts, check_state, check_trainable
from ._parts import abreast, divided, keys, mean, reported

__all__ = ["LARGE", "Step", "train_step"]

LARGE = 32 << 20
"""Bytes of parameters from which on, on a CPU, a step waits between its halves: its arrays need the room."""

MIDDLE = 8 << 20
"""Bytes of parameters from which on, on a CPU, a step frees more than MLX keeps by default, and has large arrays."""

ROOM = 3
"""How much of what a large step frees MLX keeps for the next, in units of the parameters: gradients and new moments."""

FUSED = 4
"""The same where parameters, too, are written anew."""


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
    _packing: Packing
    _gradients: jit.Compiled
    _update: jit.Compiled
    _size: Callable[[], int]

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step on a batch; `logs` holds `loss` and what the loss reports, lazy scalar arrays."""
        if self._waits():
            grads, rest, opt_state, logs = self.gradients(params, opt_state, batch)
            return *self.update(params, opt_state, grads, rest), logs
        result: tuple[Params, State, State] = self._whole(params, opt_state, batch)
        return result

    def pack(self, params: Params, opt_state: State) -> Packed:
        """Put small arrays of like shape together, on a CPU, for `packed` to compute them together.

        `.params` and `.opt_state` of the result are the trees again. A model of 8 MB or more gains nothing, and stays.
        """
        check_state(opt_state)
        gains = self._size() < MIDDLE and on_cpu() and self._whole.compiles and self.optimizer.keeps
        if not gains:
            return Packed((params, opt_state))
        return self._packing.pack(params, opt_state)

    def packed(self, state: Packed, batches: Sequence[Batch]) -> tuple[Packed, tuple[State, ...]]:
        """Take a step on each of some batches in one compiled call, with the logs of each: faster for small models.

        Every number of batches is a trace of its own. Results equal those of single steps to rounding.
        """
        if not isinstance(state, Packed) or not isinstance(batches, (list, tuple)):
            raise TypeError("packed takes what `step.pack(params, opt_state)` gives, and a list of batches")
        if state.layout is None and len(batches) == 1:
            params, opt_state, logs = self(state.params, state.opt_state, batches[0])
            return Packed((params, opt_state)), (logs,)
        return self._packing.steps(state, batches)

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make `(params, opt_state)`, evaluated, of a seed or key, or around given parameters and `seed`.

        Raise ValueError for given parameters that are not the model's, for parameters of no floating type that are to
        train, for nothing to train, and for parameters that no rule of `groups` matches. For a large model on a CPU,
        MLX keeps more freed memory from then on, unless the program has set a limit itself.
        """
        given = isinstance(start, (dict, list, tuple))
        if not given and hasattr(start, "params"):
            kind = type(start).__name__
            raise TypeError(f"a step starts from a seed, a key or parameters; of this {kind}, `.params`")
        keys = mx.random.split(rng.key(seed if given else start))
        params = as_arrays(start) if given else self.model.init(keys[0])
        if given:
            check_given(self.model, params)
        kept, _ = training(self.model, self.chosen, params)
        check_trainable(kept)
        opt_state = {
            "key": keys[1],
            "optimizer": self.optimizer.init(kept),
            "metrics": metric.start(self.metrics),
        }
        mx.eval(params, opt_state)
        if on_cpu() and self._size() >= MIDDLE:
            if self._waits():
                keep(ROOM * self._size())
            elif not native():
                keep(FUSED * self._size())
        return params, opt_state

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        """The first half: `(grads, rest, opt_state, logs)`; `rest` is what does not train, buffers updated.

        Those of a large model on a CPU come evaluated. What is queued holds the parameters that it will read, and they
        cannot be written over; so they are updated when nothing else is queued.
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
        return sum(part.traces for part in (self._whole, self._packing, self._gradients, self._update))

    def _waits(self) -> bool:
        return self._size() >= LARGE and on_cpu()  # in this order: most models are small

    def __repr__(self) -> str:
        return f"train_step({self.model.name}, {self.optimizer.name})"


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
    random stream and mode; it has `.params` and `.train`. `trainable` is a spec that narrows what the model lets train.
    `dtype` computes in another floating type, with parameters and updates in their own. `streams` divides each batch by
    rows into so many parts, which a CPU computes side by side: for losses that are means over rows.

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
    folds, chosen = metric.checked(metrics), select(trainable)

    divide = partial(training, model, chosen)

    def backward(params: Params, key: Array, batch: Batch) -> tuple[Tree, Params, State, Array, Any]:
        kept, rest = divide(params)
        aside: list[Any] = []  # as results of value_and_grad, two equal ones end in an IndexError of mx.compile

        def objective(kept: Params) -> Any:
            forward = Bound(model, merge(kept, rest), True, dtype)
            (value, logs), after = rng.run(key, lambda: losses(loss, forward, batch))
            aside.append((logs, forward.params, after, output(forward)))
            return value

        value, grads = mx.value_and_grad(objective)(kept)
        ((logs, params, key, last),) = aside
        return grads, divide(params)[1], {"loss": value, **logs}, key, last

    def gradients(params: Params, opt_state: State, batch: Batch) -> tuple[Tree, Params, State, State]:
        check_state(opt_state)
        parts, shares = divided(batch, streams)
        each = zip(keys(opt_state["key"], len(parts)), parts, strict=True)
        passes = abreast([partial(backward, params, key, part) for key, part in each])
        many, rests, logs, (key, *_), outputs = zip(*passes, strict=True)
        grads, memory = mean(many, shares), metric.fold(folds, opt_state["metrics"], outputs, parts)
        if skips(opt_state["optimizer"]):
            sound = finite(grads)
            memory = utils.tree_map(lambda new, old: mx.where(sound, new, old), memory, opt_state["metrics"])
        return grads, mean(rests, shares), {**opt_state, "key": key, "metrics": memory}, reported(logs, shares)

    def update(params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        kept, before = divide(params)
        kept, memory = optimizer.update(grads, opt_state["optimizer"], kept)
        if skips(memory):
            rest = kept_back(finite(grads), model.trainable.leaves(params), rest, before)
        in_place = size() >= LARGE or native()
        return merge(kept, rest), {**opt_state, "optimizer": apart(memory) if in_place else memory}

    def whole(params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        grads, rest, state, logs = gradients(params, opt_state, batch)
        return *update(params, state, grads, rest), logs

    @cache
    def size() -> int:
        return sum(leaf.nbytes for leaf in leaves(shapes(model))) if compile is not False else 0

    def compiled(fn: Callable[..., Any], *names: str) -> jit.Compiled:
        return jit.compiled(fn, *names, compile=compile, title=f"train_step({model.name})", numpy=("batch", "batches"))

    return Step(
        model,
        optimizer,
        folds,
        chosen,
        compiled(whole, "params", "opt_state", "batch"),
        Packing(whole, divide, compiled),
        compiled(gradients, "params", "opt_state", "batch"),
        compiled(update, "params", "opt_state", "grads", "rest"),
        size,
    )


def kept_back(sound: Array, weight: Select, rest: Params, before: Params) -> Params:
    """Return buffers as they were unless a step is sound; weights that do not train have not changed anyway."""

    def back(path: str, new: Array, old: Array) -> Array:
        return old if weight(path, old) else mx.where(sound, new, old)

    kept: Params = utils.tree_map_with_path(back, rest, before, path="")
    return kept


def training(model: Layer, chosen: Select, params: Params) -> tuple[Params, Params]:
    """Divide parameters into those that train, of what the model lets train, and the rest."""
    return partition(model.trainable(params) & chosen)(params)
