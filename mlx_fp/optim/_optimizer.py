"""An optimiser as two pure functions, and the optimisers of mlx.optimizers as such functions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from toolz import compose_left

from ..core._mlx import mlx_optimizers, mx, utils
from ..core._mlx_text import printed_call
from ..core._options import check_options, is_unread
from ..core._pickling import Picklable
from ..core._signature import arguments, signature_of
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ..tree._paths import copy_arrays
from ._rules import OPTIMIZERS, RATE

__all__ = ["Optimizer", "lift", "require_optimizer"]

_ELEMENTWISE = {
    getattr(mlx_optimizers, name)
    for name in ("AdaDelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "RMSprop", "SGD")
}
"""Classes whose update of an element depends on that element alone. A subclass may compute otherwise."""

_UPDATED = "updated parameter"

MlxOptimizer: TypeAlias = Any
"""An optimiser of mlx.optimizers, with attributes that MLX does not annotate."""


@dataclass(frozen=True, slots=True)
class Optimizer(Picklable):
    """An optimiser as two pure functions.

    - `init(params) -> opt_state` makes the state: plain dicts of arrays.
    - `update(grads, opt_state, params) -> (params, opt_state)` takes one step.
    - `name` is written into checkpoints and compared when a run resumes.
    - `label` is the text that `repr` prints: the name with all options that were given. Empty: the name.
    - `by_leaf` says that the update of a parameter depends on that parameter, its gradient and its memory only, which
      is under `memory`. A step with `update="in_backward"` needs it.

    An optimiser that wraps another keeps the state of the other under `inner`.
    """

    init: Callable[[Params], State]
    update: Callable[[Tree, State, Params], tuple[Params, State]]
    name: str = "optimizer"
    label: str = ""
    by_leaf: bool = False

    def __repr__(self) -> str:
        return self.label or self.name


def lift(target: object, *args: object, **kwargs: object) -> Optimizer:
    """Make an Optimizer from an optimiser class of MLX with its arguments, or from an optimiser of MLX.

    The state is `{"step", "learning_rate", …, "memory"}`. MLX keeps some hyper-parameters as arrays: read them by path,
    and change them with `mlx_fp.swap`, without a retrace. `memory` has the memory of each parameter under the path of
    the parameter; so a parameter may be called `step`. An update keeps the dtypes of parameters and memory.

    Args:
        target: A subclass of `mlx.optimizers.Optimizer`, or an instance.
        args: Positional arguments of the class.
        kwargs: Keyword arguments of the class. A learning rate is a number or a schedule, a function of the step.

    Returns:
        An Optimizer. Its name has the options that differ from the defaults of the class, without rates.

    Raises:
        TypeError: An option is unknown (the message has candidates), or the target is not a single optimiser.
        ValueError: An option has a value that no optimiser can have, for example a rate below 0.

    >>> opt = lift(mlx_optimizers.SGD, 0.5)
    >>> state = opt.init({"step": mx.array(1.0)})
    >>> opt.update({"step": mx.array(1.0)}, state, {"step": mx.array(1.0)})[0]["step"].item()
    0.5
    >>> lift(mlx_optimizers.SGD, 0.5, momentum=0.9)
    sgd(learning_rate=0.5, momentum=0.9)
    """
    instance, changes = _instance(target, args, kwargs)
    template = copy.copy(instance)
    template._schedulers = {name: compose_left(schedule, _rate) for name, schedule in instance._schedulers.items()}
    hyper = {name: mx.array(value) for name, value in instance.state.items() if not isinstance(value, (dict, list))}
    hyper |= {name: _rate(hyper[name]) for name in ("learning_rate", *instance._schedulers) if name in hyper}
    if not any(map(is_unread, hyper.values())):
        mx.eval(hyper)
    kind = type(instance).__name__.lower()
    rates = {name: hyper[name] for name in ("learning_rate",) if name in hyper}
    check_options(f"{kind}, at its first step,", rates, {"learning_rate": RATE})
    apply = _elementwise if type(instance) in _ELEMENTWISE else _leaf_by_leaf

    def init(params: Params) -> State:
        worker = _worker(template, dict(hyper))
        worker.init({"memory": params})
        state: State = worker.state
        return state

    def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        worker = _worker(template, dict(copy_arrays({**state, "memory": {}})))
        worker._initialized = True
        updated, memory = apply(worker, grads, state["memory"], params)
        return _with_dtypes(updated, params), _with_dtypes({**worker.state, "memory": memory}, state)

    has_values = not any(map(is_unread, (*args, *kwargs.values())))
    label = printed_call(kind, target, args, kwargs) if isinstance(target, type) and has_values else ""
    by_leaf = type(instance).__module__ == mlx_optimizers.Optimizer.__module__
    return Optimizer(init, update, f"{kind}{changes}", label, by_leaf)


def require_optimizer(optimizer: object, taker: str) -> Optimizer:
    """Return an Optimizer unchanged; raise TypeError with the remedy for any other value."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    hint = "call it, with a rate" if callable(optimizer) else "optim.lift it"
    raise TypeError(f"{taker} takes an Optimizer; got {type(optimizer).__name__}: {hint}")


def _instance(target: Any, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[MlxOptimizer, str]:
    """Return an optimiser of MLX, and the text of the options that differ from the defaults of its class."""
    options: dict[str, object] = {}
    if isinstance(target, mlx_optimizers.Optimizer):
        if args or kwargs:
            raise TypeError(f"{type(target).__name__} is made already and takes no arguments; lift its class")
        instance = target
    else:
        options = arguments(target, args, kwargs)
        if getattr(target, "__module__", "") == mlx_optimizers.Optimizer.__module__:
            check_options(target.__name__.lower(), _without_defaults(target, options), OPTIMIZERS)
        instance = target(*args, **kwargs)
    if not isinstance(instance, mlx_optimizers.Optimizer) or isinstance(instance, mlx_optimizers.MultiOptimizer):
        raise TypeError(
            f"lift takes a single mlx optimiser; got {type(instance).__name__}; for several use optim.groups"
        )
    return instance, _changes(target, options)


def _without_defaults(target: Callable[..., object], options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that are not the defaults of a class."""
    defaults = {p.name: p.default for p in signature_of(target) or ()}
    return {name: value for name, value in options.items() if value is not defaults.get(name)}


def _changes(target: Callable[..., object], options: Mapping[str, object]) -> str:
    """Return the text of options that differ from their defaults. Rates are in the state, and not in this text.

    Checkpoints hold this text, so it must not change.
    """
    defaults = {p.name: p.default for p in signature_of(target) or () if p.default is not p.empty}
    read = {name: value for name, value in options.items() if not is_unread(value)}
    changed = [f"{name}={read[name]}" for name, default in defaults.items() if read.get(name, default) != default]
    return f"({', '.join(changed)})" if changed else ""


def _elementwise(worker: MlxOptimizer, grads: Tree, memory: Tree, params: Params) -> tuple[Params, Tree]:
    """Update with a function of elements, which the backend maps; `worker` gives the rates and counter of the step."""
    worker.apply_gradients({}, {})

    def update_leaf(grad: Array, param: Array, memory: State) -> State:
        after = dict(memory)
        return {_UPDATED: worker.apply_single(grad, param, after), **after}

    updated = in_use().elementwise(update_leaf, grads, params, memory)
    after = utils.tree_map(lambda _, leaf: {k: v for k, v in leaf.items() if k != _UPDATED}, grads, updated)
    return utils.tree_map(lambda _, leaf: leaf[_UPDATED], grads, updated), after


def _leaf_by_leaf(worker: MlxOptimizer, grads: Tree, memory: Tree, params: Params) -> tuple[Params, Tree]:
    """Update with MLX's own loop over leaves, on copies, because MLX may change its arguments in place."""
    worker.state["memory"] = copy_arrays(memory)
    updated = worker.apply_gradients({"memory": grads}, {"memory": copy_arrays(params)})["memory"]
    return updated, worker.state["memory"]


def _worker(template: MlxOptimizer, state: State) -> MlxOptimizer:
    worker = copy.copy(template)
    worker.state = state
    return worker


def _rate(value: Any) -> Array:
    """Return a rate as float32. A schedule may return a plain number, and the first rate may be an int."""
    return mx.array(value, mx.float32)


def _with_dtypes(new: Tree, old: Tree) -> Tree:
    """Cast a tree to the dtypes of `old`, so that the next step needs no new trace."""

    def cast(now: Any, before: Array) -> Array:
        if isinstance(now, mx.array):
            return now if now.dtype == before.dtype else now.astype(before.dtype)
        return mx.array(now, before.dtype)

    return utils.tree_map(cast, new, old)
