"""An optimiser as two pure functions, and mlx's own optimisers lifted into them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolz import compose_left

from ..core._mlx import mlx_optimizers, mx, utils
from ..core._options import check_options
from ..core._pickling import Picklable
from ..core._signature import arguments, signature_of
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ..tree._paths import copy_arrays
from ._rules import OPTIMIZERS, RATE

__all__ = ["Optimizer", "checked", "lift"]

_ELEMENTWISE = {
    getattr(mlx_optimizers, name)
    for name in ("AdaDelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "RMSprop", "SGD")
}
"""Classes, but not those made of them, whose update of an element depends on that element alone."""

_UPDATED = "updated parameter"


@dataclass(frozen=True, slots=True)
class Optimizer(Picklable):
    """`init(params) -> opt_state`; `update(grads, opt_state, params) -> (params, opt_state)`; both pure.

    The state is plain dicts of arrays. Optimisers wrapped around this one keep it under `inner`.
    """

    init: Callable[[Params], State]
    update: Callable[[Tree, State, Params], tuple[Params, State]]
    name: str = "optimizer"

    def __repr__(self) -> str:
        return self.name


def lift(target: Any, *args: Any, **kwargs: Any) -> Optimizer:
    """Make an Optimizer of an mlx optimiser class, with its own arguments, or of an mlx optimiser.

    The state is `{"step", "learning_rate", …, "memory"}`: hyper-parameters that MLX keeps as arrays, readable by path
    and changed by `mlx_fp.swap` without a retrace, and the memory of each parameter under the parameter's own path. So
    a parameter may be called `step`. New parameters and memory keep the dtypes of the old. The name says which options
    differ from the class's defaults. ValueError or TypeError for options that no optimiser can have, such as a rate
    below 0.

    >>> opt = lift(mlx_optimizers.SGD, 0.5)
    >>> state = opt.init({"step": mx.array(1.0)})
    >>> opt.update({"step": mx.array(1.0)}, state, {"step": mx.array(1.0)})[0]["step"].item()
    0.5
    >>> lift(mlx_optimizers.SGD, 0.5, momentum=0.9)
    sgd(momentum=0.9)
    """
    made, changes = _made(target, args, kwargs)
    template = copy.copy(made)
    template._schedulers = {name: compose_left(schedule, _rate) for name, schedule in made._schedulers.items()}
    hyper = {name: mx.array(value) for name, value in made.state.items() if not isinstance(value, (dict, list))}
    hyper |= {name: _rate(hyper[name]) for name in ("learning_rate", *made._schedulers) if name in hyper}
    mx.eval(hyper)
    rates = {name: hyper[name] for name in ("learning_rate",) if name in hyper}
    check_options(f"{type(made).__name__.lower()}, at its first step,", rates, {"learning_rate": RATE})
    apply = _elementwise if type(made) in _ELEMENTWISE else _leaf_by_leaf

    def init(params: Params) -> State:
        worker = _worker(template, dict(hyper))
        worker.init({"memory": params})
        state: State = worker.state
        return state

    def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        worker = _worker(template, dict(copy_arrays({**state, "memory": {}})))
        worker._initialized = True
        updated, memory = apply(worker, grads, state["memory"], params)
        return _as_before(updated, params), _as_before({**worker.state, "memory": memory}, state)

    return Optimizer(init, update, f"{type(made).__name__.lower()}{changes}")


def checked(optimizer: Any, taker: str) -> Optimizer:
    """Return an Optimizer as it is; TypeError with the remedy for anything else."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    hint = "call it, with a rate" if callable(optimizer) else "optim.lift it"
    raise TypeError(f"{taker} takes an Optimizer; got {type(optimizer).__name__}: {hint}")


def _made(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
    """Return an mlx optimiser, and the options that differ from its class's defaults in words."""
    options: dict[str, Any] = {}
    if isinstance(target, mlx_optimizers.Optimizer):
        if args or kwargs:
            raise TypeError(f"{type(target).__name__} is made already and takes no arguments; lift its class")
        made = target
    else:
        options = arguments(target, args, kwargs)
        if getattr(target, "__module__", "") == mlx_optimizers.Optimizer.__module__:
            check_options(target.__name__.lower(), _given(target, options), OPTIMIZERS)
        made = target(*args, **kwargs)
    if not isinstance(made, mlx_optimizers.Optimizer) or isinstance(made, mlx_optimizers.MultiOptimizer):
        raise TypeError(f"lift takes a single mlx optimiser; got {type(made).__name__}; for several use optim.groups")
    return made, _changes(target, options)


def _given(target: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not the class's defaults."""
    defaults = {p.name: p.default for p in signature_of(target) or ()}
    return {name: value for name, value in options.items() if value is not defaults.get(name)}


def _changes(target: Any, options: Mapping[str, Any]) -> str:
    """Name the options that were given with other values than their defaults; rates are in the state."""
    defaults = {p.name: p.default for p in signature_of(target) or () if p.default is not p.empty}
    changed = [f"{name}={options[name]}" for name, default in defaults.items() if options.get(name, default) != default]
    return f"({', '.join(changed)})" if changed else ""


def _elementwise(worker: Any, grads: Tree, memory: Tree, params: Params) -> tuple[Params, Tree]:
    """Update with a function of elements, as the backend maps it; `worker` takes the step's rates and counter."""
    worker.apply_gradients({}, {})

    def single(grad: Array, param: Array, memory: State) -> State:
        after = dict(memory)
        return {_UPDATED: worker.apply_single(grad, param, after), **after}

    updated = in_use().elementwise(single, grads, params, memory)
    after = utils.tree_map(lambda _, each: {k: v for k, v in each.items() if k != _UPDATED}, grads, updated)
    return utils.tree_map(lambda _, each: each[_UPDATED], grads, updated), after


def _leaf_by_leaf(worker: Any, grads: Tree, memory: Tree, params: Params) -> tuple[Params, Tree]:
    """Update by MLX's own loop over leaves, on arrays that it may write over."""
    worker.state["memory"] = copy_arrays(memory)
    updated = worker.apply_gradients({"memory": grads}, {"memory": copy_arrays(params)})["memory"]
    return updated, worker.state["memory"]


def _worker(template: mlx_optimizers.Optimizer, state: State) -> Any:
    worker = copy.copy(template)
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
