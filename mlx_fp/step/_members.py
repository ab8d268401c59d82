"""Several members in one compiled step: `mx.vmap` of the whole training step over stacked parameters and states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._errors import is_count
from ..core._mlx import mx, utils
from ..core._options import number, unread
from ..core._types import Batch, Params, State, Tree
from ..nn._layer import Layer
from ..tree._flattening import list_arrays
from ._bound_model import BoundModel
from ._carried import Logged
from ._member_checks import check_computation, named_failure
from ._member_record import SETTINGS, Members, Settings, of_one
from ._train_step import TrainStep
from ._vmapped import for_members, vmapped

__all__ = ["members", "members_of"]

tree_map = utils.tree_map

_NUMBER = number()
"""The rule of a setting."""

_BATCHES = ("shared", "own")


def members(
    count: int, *, batches: str = "shared", **settings: Sequence[float]
) -> Callable[[TrainStep | Callable[..., TrainStep]], Members]:
    """Train several members in one compiled step, each with parameters, a random stream and a state of its own.

    The results equal those of separate steps, to rounding. Small models gain, because one operation computes all
    members; see [steps](../steps.md). The learning rate of a member is in its state, so it may
    differ too, as a setting.

    Args:
        count: The number of members.
        batches: "shared" gives each batch to all members. With "own" each array of a batch has the members as first
            axis.
        settings: For each option of the function that makes the step, a list with the number of each member.

    Returns:
        A function of a step that `train_step` has made. With settings it is a function of a function: that one takes
        the settings by name and returns such a step.

    Raises:
        TypeError: For a value of another type.
        ValueError: For a list of another length than `count`, for an option of `batches` that does not exist, and for a
            model that MLX cannot compute for several members; the message names the layer.

    >>> from mlx_fp import nn, optim, train_step
    >>> model, loss = nn.linear(2, 1), lambda model, x: (model(x) ** 2).mean()
    >>> def make(weight_decay):
    ...     return train_step(model, loss, optim.adamw(0.1, weight_decay=weight_decay))
    >>> many = members(3, weight_decay=[0.0, 0.1, 0.2])(make)
    >>> params, opt_state = many.init([7, 7, 7])
    >>> params, opt_state, logs = many(params, opt_state, mx.ones((4, 2)))
    >>> params["weight"].shape, logs["loss"].shape, many.member(2)(params)["weight"].shape
    ((3, 1, 2), (3,), (1, 2))
    """
    if not is_count(count, least=1):
        raise ValueError(f"members takes a number of members, 1 or more; got {count!r}")
    if batches not in _BATCHES:
        raise ValueError(f'batches is "shared" or "own"; got {batches!r}')
    for name, values in settings.items():
        _check_setting(name, values, count)

    def stacked(make: TrainStep | Callable[..., TrainStep]) -> Members:
        steps = _steps(make, settings, count)
        return members_of(steps, make, settings, batches)

    return stacked


def _steps(make: TrainStep | Callable[..., TrainStep], settings: Settings, count: int) -> tuple[TrainStep, ...]:
    """Return the step of each member alone."""
    if isinstance(make, TrainStep):
        if settings:
            raise TypeError(f"with settings members takes a function of {', '.join(settings)} that returns a step")
        return (make,) * count
    if not settings or not callable(make):
        raise TypeError(f"without settings members takes a step that train_step has made; got {type(make).__name__}")
    steps = tuple(make(**{name: values[i] for name, values in settings.items()}) for i in range(count))
    if not all(isinstance(step, TrainStep) for step in steps):
        raise TypeError(f"the function that members takes returns a step of train_step; got {type(steps[0]).__name__}")
    return steps


def members_of(
    steps: tuple[TrainStep, ...], make: TrainStep | Callable[..., TrainStep], settings: Settings, batches: str
) -> Members:
    """Compile the step of all members, and their prediction. Refuse a step that cannot be one of several members."""
    for step in {id(step): step for step in steps}.values():
        check_computation(step.computation)
    first = steps[0].computation
    model, title, compiles = first.model, f"members({len(steps)})({first.model.name})", steps[0]._whole.compiles

    one = _step_of_one(make)

    def whole(params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        shared = (params, opt_state)
        if batches == "shared":
            result = vmapped(lambda params, opt_state: one(params, opt_state, batch), *shared)
        else:
            _check_own(batch, list_arrays(params)[0].shape[0])
            result = vmapped(one, *shared, batch)
        return cast(tuple[Params, State, Logged], result)

    def each(params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, tuple[Logged, ...]]:
        params, opt_state, logged = whole(params, opt_state, batch)
        return params, opt_state, _logs_of_each(logged, list_arrays(params)[0].shape[0])

    def predict(params: Params, xs: tuple[Tree, ...], kw: dict[str, Tree]) -> tuple[Tree, Tree]:
        outputs = vmapped(lambda params: _output(model, first.dtype, params, xs, kw), params)
        return tree_map(lambda y: mx.mean(y, axis=0), outputs), tree_map(lambda y: mx.std(y, axis=0), outputs)

    def build(fn: Callable[..., Tree], *names: str) -> Compiled:
        def named(*trees: Tree) -> Tree:
            return named_failure(model, settings, lambda: fn(*trees))

        return compiled(for_members(named), *names, compile=compiles, title=title, numpy=names[1:])

    names = ("params", "opt_state", "batch")
    return Members(
        steps, settings, batches, build(whole, *names), build(each, *names), build(predict, "params", "xs", "kw")
    )


def _step_of_one(
    make: TrainStep | Callable[..., TrainStep],
) -> Callable[[Params, State, Batch], tuple[Params, State, Logged]]:
    """Return the step of one member, whose settings are arrays of its state."""

    def one(params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        """Take the step of one member, whose settings are arrays without values."""
        values = opt_state[SETTINGS]

        def take_step() -> tuple[Params, State, Logged]:
            step = make if isinstance(make, TrainStep) else make(**values)
            return step.computation.step(params, of_one(opt_state), batch)

        after_params, after, logged = unread(take_step)
        return after_params, {**after, SETTINGS: values}, logged

    return one


def _logs_of_each(logged: Logged, count: int) -> tuple[Logged, ...]:
    """Return the logs of each member of stacked logs."""
    logs, weights, examples = logged

    def row(leaf: Tree, index: int) -> Tree:
        return leaf[index] if isinstance(leaf, mx.array) else leaf

    trees = [tree_map(partial(row, index=i), (logs, weights)) for i in range(count)]
    return tuple((*tree, examples) for tree in trees)


def _output(model: Layer, dtype: mx.Dtype | None, params: Params, xs: tuple[Tree, ...], kw: dict[str, Tree]) -> Tree:
    """Return the output of a model in evaluation mode."""
    bound = BoundModel(model, params, False, dtype)
    return rng.run(0, lambda: bound(*xs, **kw))[0]


def _check_setting(name: str, values: object, count: int) -> None:
    """Refuse a setting that has no number for each member."""
    if not isinstance(values, (list, tuple)) or not all(map(_NUMBER.holds, values)):
        raise TypeError(f"setting {name!r} of members is a list with a number for each member; got {values!r}")
    if len(values) != count:
        raise ValueError(f"setting {name!r} has {len(values)} values for {count} members")


def _check_own(batch: Batch, count: int) -> None:
    """Refuse a batch whose arrays do not have the members as first axis."""
    shapes = [tuple(leaf.shape) for leaf in list_arrays(batch)]
    if any(shape[:1] != (count,) for shape in shapes):
        raise ValueError(f'with batches="own" the first axis of each array is that of {count} members; got {shapes}')
