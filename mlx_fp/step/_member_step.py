"""The step of one member of several, whose runs are in lockstep: the first that takes a step computes it for all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State, Tree
from ..task._folds import Metric
from ..tree._paths import leaves
from ._carried import Carried, Logged
from ._member_record import SETTINGS, Members, only, take_one
from ._train_step import TrainStep

__all__ = ["MemberStep", "Stack", "stacked"]


@dataclass(frozen=True, slots=True)
class _Place:
    """The form of a carried state that is one member of stacked trees."""

    index: int

    def join(self, params: Params, opt_state: State) -> list[Array] | None:
        """Return None: a single state has no place in a stack."""
        return None

    def trees(self, arrays: Any) -> tuple[Params, State]:
        """Return the parameters and the state of the member, as lazy arrays."""
        params, opt_state = arrays
        take = take_one(self.index)
        return take(params), take(opt_state)


class Stack:
    """The members that wait for a step, and the results of the last step that their runs have not taken yet.

    The runs are in lockstep: each says by `park` that it waits before a step, and none goes on before all wait.
    """

    __slots__ = ("_many", "_parked", "_results", "failure")

    def __init__(self, many: Members) -> None:
        self._many = many
        self._parked: dict[int, tuple[Carried, Hashable]] = {}
        self._results: dict[int, tuple[Carried, Logged]] = {}
        self.failure: Exception | None = None
        """The error that ended the step of all members."""

    @property
    def traces(self) -> int:
        """The number of traces of the step of all members."""
        return self._many.traces

    def park(self, index: int, train: Carried, place: Hashable) -> None:
        """Say that a member waits with a state before the batch at a place of the data."""
        self._parked[index] = train, place

    def advance(self, index: int, batch: Batch) -> tuple[Carried, Logged]:
        """Return the state and the logs of a member after the step on the batch at its place."""
        if index not in self._results:
            try:
                self._compute(index, batch)
            except Exception as error:
                self.failure = error
                raise
        return self._results.pop(index)

    def _compute(self, index: int, batch: Batch) -> None:
        """Take the step of all members that wait at the same place."""
        place = self._parked[index][1]
        indices = sorted(i for i, (_, other) in self._parked.items() if other == place)
        trees = self._stacked(indices, [self._parked.pop(i)[0] for i in indices])
        params, opt_state, logged = self._many.logged_each(*trees, batch)
        arrays = params, opt_state  # one object, by which the next step knows that they are stacked
        for row, (i, logs) in enumerate(zip(indices, logged, strict=True)):
            self._results[i] = Carried(arrays, _Place(row)), logs

    def _stacked(self, indices: Sequence[int], states: Sequence[Carried]) -> tuple[Params, State]:
        """Return the stacked trees of some members: those of the last step, or else new ones."""
        arrays, forms = states[0].arrays, [state.form for state in states]
        rows = [form.index for form in forms if isinstance(form, _Place)]
        if len(rows) == len(states) and all(state.arrays is arrays for state in states):
            whole: tuple[Params, State] = arrays
            count = leaves(whole[0])[0].shape[0]
            return whole if rows == list(range(count)) else only(rows)(whole)
        params, opt_state = stacked([(state.params, state.opt_state) for state in states])
        values = {name: mx.array([each[i] for i in indices], mx.float32) for name, each in self._many.settings.items()}
        return params, {**opt_state, SETTINGS: values}


@dataclass(frozen=True, slots=True, eq=False)
class MemberStep:
    """The step of one member, which a run takes. Its results come from the step of all members."""

    index: int
    step: TrainStep
    stack: Stack

    def __repr__(self) -> str:
        return f"the step of one of several members, {self.step!r},"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that each step folds."""
        return self.step.metrics

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the parameters of this member that train."""
        return self.step.parameter_bytes

    @property
    def traces(self) -> int:
        """The number of traces of the step of all members."""
        return self.stack.traces

    def trainable(self, params: Params) -> Params:
        """Return the parameters that train."""
        return self.step.trainable(params)

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make the parameters and the state of this member before the first step."""
        return self.step.init(start, seed=seed)

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take a step of this member alone."""
        return self.step(params, opt_state, batch)

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Return the trees as they are; the next step stacks them."""
        return Carried((params, opt_state))

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step from the state that this member has parked."""
        (batch,) = batches
        train, logged = self.stack.advance(self.index, batch)
        return train, (logged,)


def stacked(trees: Sequence[Tree]) -> Any:
    """Stack the arrays of several trees of one structure.

    >>> stacked([{"w": mx.array(1)}, {"w": mx.array(2)}])
    {'w': array([1, 2], dtype=int32)}
    """
    return utils.tree_map(lambda *leaves: mx.stack(list(leaves)), *trees)
