"""An optimiser as two pure functions, and mlx's own optimisers lifted into them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.optimizers as mlx_optimizers
from toolz import compose_left

from ..core._errors import unknown
from ..core._mlx import mx, utils
from ..core._signature import arguments
from ..core._types import Params, State, Tree
from ..cpu._grouping import together
from ..tree._paths import fresh

__all__ = ["Optimizer", "changed", "checked", "lift"]

_ELEMENTWISE = {
    getattr(mlx_optimizers, name)
    for name in ("AdaDelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "RMSprop", "SGD")
}
"""Classes, but not those made of them, whose update of an element depends on that element alone."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """`init(params) -> opt_state`; `update(grads, opt_state, params) -> (params, opt_state)`; both pure.

    The state is plain dicts of arrays. Optimisers wrapped around this one keep it under `inner`.
    """

    init: Callable[[Params], State]
    update: Callable[[Tree, State, Params], tuple[Params, State]]
    name: str = "optimizer"
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What it and the optimisers in it were made with, by name; see `changed`."""
    remake: Callable[[Mapping[str, Any]], Optimizer] | None = field(default=None, compare=False)
    keeps: bool = field(default=False, compare=False)
    """Whether `update` changes no array that it is given or has given in place, as `p -= …` does: those of this
    library do not. Small arrays of others never lie together."""

    def __repr__(self) -> str:
        return self.name


def lift(target: Any, *args: Any, **kwargs: Any) -> Optimizer:
    """Make an Optimizer of an mlx optimiser class, with its own arguments, or of an mlx optimiser.

    The state is `{"step", "learning_rate", …, "memory"}`: hyper-parameters that MLX keeps as arrays, readable by path
    and changed by `mlx_fp.swap` without a retrace, and the memory of each parameter under the parameter's own path. So
    a parameter may be called `step`. New parameters and memory keep the dtypes of the old.

    >>> opt = lift(mlx_optimizers.SGD, 0.5)
    >>> state = opt.init({"step": mx.array(1.0)})
    >>> opt.update({"step": mx.array(1.0)}, state, {"step": mx.array(1.0)})[0]["step"].item()
    0.5
    """
    options: dict[str, Any] = {}
    if isinstance(target, mlx_optimizers.Optimizer):
        if args or kwargs:
            raise TypeError(f"{type(target).__name__} is made already and takes no arguments; lift its class")
        made = target
    else:
        options = arguments(target, args, kwargs)
        made = target(*args, **kwargs)
    if not isinstance(made, mlx_optimizers.Optimizer) or isinstance(made, mlx_optimizers.MultiOptimizer):
        raise TypeError(f"lift takes a single mlx optimiser; got {type(made).__name__}; for several use optim.groups")
    still = copy.copy(made)
    still._schedulers = {name: compose_left(schedule, _rate) for name, schedule in made._schedulers.items()}
    hyper = {name: mx.array(value) for name, value in made.state.items() if not isinstance(value, (dict, list))}
    hyper |= {name: _rate(hyper[name]) for name in ("learning_rate", *made._schedulers) if name in hyper}
    mx.eval(hyper)

    def init(params: Params) -> State:
        worker = _worker(still, dict(hyper))
        worker.init({"memory": params})
        state: State = worker.state
        return state

    def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        elementwise = type(made) in _ELEMENTWISE
        trees = grads, params if elementwise else fresh(params), state["memory"]
        (grads, own, memory), back = together(*trees) if elementwise else (trees, lambda tree: tree)
        worker = _worker(still, fresh({**state, "memory": memory}))
        worker._initialized = True
        updated = worker.apply_gradients({"memory": grads}, {"memory": own})["memory"]
        after = {**worker.state, "memory": back(worker.state["memory"])}
        return _as_before(back(updated), params), _as_before(after, state)

    remake = (lambda options: lift(target, **options)) if options else None
    return Optimizer(init, update, type(made).__name__.lower(), options, remake, keeps=True)


def changed(options: Mapping[str, Any]) -> Callable[[Optimizer], Optimizer]:
    """Make an optimiser anew with other options; those of an optimiser in `groups` have its number in front.

    KeyError with candidates for an option that there is not.

    >>> from mlx_fp import optim
    >>> slow = pipe(optim.sgd(0.5), optim.clip_norm(1.0), changed({"learning_rate": 0.1}))
    >>> slow.options["learning_rate"], slow.options["max_norm"]
    (0.1, 1.0)
    """

    def again(optimizer: Optimizer) -> Optimizer:
        for name in options:
            if name not in optimizer.options:
                raise KeyError(unknown(f"option of {optimizer.name}", name, optimizer.options))
        if not options or optimizer.remake is None:
            return optimizer
        return optimizer.remake({**optimizer.options, **options})

    return again


def checked(optimizer: Any, taker: str) -> Optimizer:
    """Return an Optimizer as it is; TypeError with the remedy for anything else."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    hint = "call it, with a rate" if callable(optimizer) else "optim.lift it"
    raise TypeError(f"{taker} takes an Optimizer; got {type(optimizer).__name__}: {hint}")


def _worker(still: mlx_optimizers.Optimizer, state: State) -> Any:
    worker = copy.copy(still)
    worker.state = state
    return worker


def _rate(value: Any) -> Any:
    """Take a rate, which a schedule may give as a plain number and an int may start, as float32."""
    return mx.array(value, mx.float32)


def _as_before(new: Tree, old: Tree) -> Tree:
    """Keep the dtypes of `old`, so that the next step is the same trace."""

    def same(now: Any, before: Any) -> Any:
        if isinstance(now, mx.array):
            return now if now.dtype == before.dtype else now.astype(before.dtype)
        return mx.array(now, before.dtype)

    return utils.tree_map(same, new, old)
