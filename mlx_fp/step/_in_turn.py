"""Several steps as one: each takes its turn on each batch, on one tree of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..compile._compiled import Compiled, compiled
from ..compile._evaluation import wait_for
from ..core._errors import is_count, unknown
from ..core._frozen import FrozenDict
from ..core._traceback import ShortTraceback
from ..core._types import Array, Batch, Params, State
from ..core.backend import on_device
from ..nn._layer import shapes
from ..optim._optimizer import Optimizer
from ..task import _folds
from ..task._folds import Metric
from ..tree._paths import flat
from ._carried import Carried, Carrier, Logged
from ._checks import check_options, check_state
from ._computation import Computation
from ._train_step import TrainStep
from ._turns import Change, Turns, changed_paths, first_state

__all__ = ["InTurn", "in_turn"]


@dataclass(frozen=True, slots=True, repr=False)
class InTurn:
    """A compiled pure function `step(params, opt_state, batch) -> (params, opt_state, logs)`. `in_turn` makes it.

    `opt_state` is that of a step. `opt_state["optimizer"]["groups"]` lists the states of the members' optimisers.
    """

    members: Mapping[str, TrainStep | Change]
    metrics: tuple[Metric, ...]
    optimizer: Optimizer
    """The optimisers of the members as one."""
    parameter_bytes: int
    _turns: Turns
    _whole: Compiled
    _carrier: Carrier

    @property
    def traces(self) -> int:
        """The number of traces."""
        return self._whole.traces + self._carrier.traces

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make the parameters and the state before the first step, evaluated.

        Args:
            start: A seed, a random key, or parameters, as for a `TrainStep`.
            seed: The seed or key of the random stream where `start` holds parameters.

        Returns:
            `(params, opt_state)`.
        """
        first, *others = (member for member in self.members.values() if isinstance(member, TrainStep))
        params, opt_state = first.init(start, seed=seed)
        groups = [opt_state["optimizer"], *(step.init(params, seed=seed)[1]["optimizer"] for step in others)]
        state = {**opt_state, "optimizer": first_state(groups), "metrics": _folds.start(self.metrics)}
        wait_for(params, state)
        return params, state

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take the turn of each member on a batch.

        Args:
            params: The parameters and buffers that the members share.
            opt_state: The state from `init` or from the last step.
            batch: A batch, as the losses of all members take it.

        Returns:
            `(params, opt_state, logs)`. `logs` holds `loss`, the sum of the losses of the members, and the logs of each
            member with its name, for example `d_loss`.
        """
        with ShortTraceback():
            params, opt_state, (logs, *_) = self._whole(params, opt_state, batch)
        return params, opt_state, logs

    def trainable(self, params: Params) -> Params:
        """Return the parameters that a member trains or changes, with a hole, an empty dict, for each other one."""
        return self._turns.trainable(params)

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form in which `advance` is fastest on this device."""
        check_state(opt_state)
        return self._carrier.carry(params, opt_state)

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step on each of several batches in one compiled call."""
        return self._carrier.advance(state, batches)

    def __repr__(self) -> str:
        turns = ", ".join(self.members)
        return f"in_turn({turns})"


def in_turn(
    *,
    every: Mapping[str, int] = FrozenDict(),
    compile: bool | Mapping[str, object] = True,
    **members: TrainStep | Change,
) -> InTurn:
    """Make one step of several. Each member takes its turn on each batch, in the order of the arguments.

    The members share one tree of parameters, and each one receives the parameters from the one before it. They are
    compiled into one function. For example, the discriminator and the generator of a GAN are two members that train
    two parts of one model.

    A member is a step of `train_step`, or a function `params -> params`. For example, such a function copies weights
    to a target network, or clips weights.

    The states of the optimisers are a list, in the order of the members, as those of `optim.groups`. So `optim.reading`
    and `optim.scale_rates` find them.

    Args:
        every: For names of members, the number of steps from one turn to the next: `{"target": 100}` gives `target` a
            turn at the steps 100, 200, …. The others have a turn at each step. One trace serves all steps: a member is
            computed at each step, and its results are dropped where it has no turn. Its logs then count nothing in the
            means of an epoch.
        compile: False to run the step without `mx.compile`; a mapping holds options of `mx.compile`. The options
            `compile` of the members have no effect.
        members: The members by name. Their logs get their names, for example `d_loss`.

    Returns:
        A step, for a loop of your own or for `fp.with_step`. `loss` among its logs is the sum of all losses.

    Raises:
        TypeError: A member is neither a step of `train_step` nor a function; or no member is a step.
        ValueError: The members have other parameters; a function returns another structure; two members have metrics
            of one name; a member takes part in several processes; or a number in `every` is no int of 1 or more.
        KeyError: `every` names no member.

    >>> from mlx_fp import nn, optim, train_step
    >>> model = nn.sequential(first=nn.linear(2, 2), second=nn.linear(2, 1))
    >>> def member(part):
    ...     return train_step(model, lambda model, x: model(x).square().mean(), optim.sgd(0.1), trainable=part)
    >>> step = in_turn(a=member("first"), b=member("second"))
    >>> params, opt_state, logs = step(*step.init(0), mx.ones((4, 2)))
    >>> sorted(logs), len(opt_state["optimizer"]["groups"])
    (['a_loss', 'b_loss', 'loss'], 2)
    """
    check_options(compile, None)
    steps = _checked_steps(members)
    _check_every(every, members)
    computations = {
        name: member.computation if isinstance(member, TrainStep) else member for name, member in members.items()
    }
    metrics = _folds.checked([metric for step in steps.values() for metric in step.metrics])
    params = shapes(next(iter(steps.values())).computation.model)
    trained = frozenset[str]().union(*(_paths_of(name, member, params) for name, member in computations.items()))
    turns = Turns(FrozenDict(computations), FrozenDict(every), trained)
    parameter_bytes = sum(leaf.nbytes for leaf in flat(turns.trainable(params)).values()) if compile is not False else 0

    def build(fn: Callable[..., object], *names: str) -> Compiled:
        title = f"in_turn({', '.join(members)})"
        return compiled(on_device(fn), *names, compile=compile, title=title, numpy=("batch", "batches"))

    return InTurn(
        FrozenDict(members),
        metrics,
        turns.optimizer(),
        parameter_bytes,
        turns,
        build(turns.step, "params", "opt_state", "batch"),
        Carrier(turns.step, turns.trainable, parameter_bytes, build),
    )


def _checked_steps(members: Mapping[str, object]) -> dict[str, TrainStep]:
    """Return the members that are steps. Raise TypeError or ValueError for members that share no parameters."""
    steps = {name: member for name, member in members.items() if isinstance(member, TrainStep)}
    for name, member in members.items():
        if name not in steps and (not callable(member) or hasattr(member, "init")):
            raise TypeError(
                f"{name} of in_turn is a step of train_step, or a function params -> params; got {member!r}"
            )
    if not steps:
        raise TypeError("in_turn takes one step of train_step or more, by name: in_turn(d=train_step(…), …)")
    (first, of_first), *others = ((name, _shapes_of(step)) for name, step in steps.items())
    for name, own in others:
        if differing := sorted(path for path, _ in own ^ of_first):
            raise ValueError(f"members share one tree of parameters; {first} and {name} differ in {differing[:4]}")
    apart = [name for name, step in steps.items() if step.computation.exchange.world.size > 1]
    if apart:
        raise ValueError(f"{', '.join(apart)} has across=…, and in_turn takes steps of one process")
    return steps


def _check_every(every: Mapping[str, int], members: Mapping[str, object]) -> None:
    """Refuse names of no member, and numbers that are no counts."""
    for name, count in every.items():
        if name not in members:
            raise KeyError(unknown("member in every", name, members))
        if not is_count(count, least=1):
            raise ValueError(f"every of {name} is a count of steps, 1 or more; got {count!r}")


def _shapes_of(step: TrainStep) -> set[tuple[str, tuple[int, ...]]]:
    return {(path, tuple(leaf.shape)) for path, leaf in flat(shapes(step.computation.model)).items()}


def _paths_of(name: str, member: Computation | Change, params: Params) -> set[str]:
    """Return the paths of the parameters that a member trains or changes."""
    if isinstance(member, Computation):
        return set(flat(member.split(params)[0]))
    return changed_paths(name, member, params)
