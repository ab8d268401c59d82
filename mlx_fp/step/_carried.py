"""The state between steps, in the form that the backend chooses, and steps on a state in that form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ..compile._compiled import Compiled
from ..compile._evaluation import queue
from ..core._mlx import mx
from ..core._types import Array, Batch, Params, State, Tree
from ..core.backend import Form, device_backend
from ..tree._paths import copy_arrays

__all__ = ["Carried", "Carrier", "Logged"]

Logged = tuple[State, State, int]
"""The logs of a step, the weight of each log that is a mean, and the number of examples in the batch."""

StepFunction = Callable[[Params, State, Batch], tuple[Params, State, Logged]]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Carried:
    """The parameters and the state between two steps. `Step.carry` and `Step.advance` make it.

    With a form, `arrays` is the list of arrays in that form. Without, it is the pair of trees `(params, opt_state)`.
    """

    arrays: Tree
    form: Form | None = None

    @property
    def params(self) -> Params:
        """The parameters and buffers as a tree."""
        return self._tree(0)

    @property
    def opt_state(self) -> State:
        """The random stream, the state of the optimiser and the memory of the metrics, as a tree."""
        state: State = self._tree(1)
        return state

    def lazy_opt_state(self) -> State:
        """Return the state as a tree of lazy arrays. Each array is computed when it is read."""
        state: State = self.arrays[1] if self.form is None else self.form.trees(self.arrays)[1]
        return state

    def shared(self) -> Carried:
        """Return a second record of the same arrays, which keeps them after `release` of this one."""
        return Carried(self.arrays, self.form)

    def release(self) -> None:
        """Drop the arrays, so that a caller who still holds this record does not keep them in memory."""
        object.__setattr__(self, "arrays", None)

    def _tree(self, index: int) -> Tree:
        """Return the parameters, 0, or the state, 1."""
        if self.arrays is None:
            raise RuntimeError("this state has been released: the run took a step from it, and holds a later state")
        if self.form is None:
            return self.arrays[index]
        tree = self.form.trees(self.arrays)[index]
        with suppress(RuntimeError):  # raised again when the array is evaluated
            mx.async_eval(tree)  # a lazy array can only be evaluated by the thread that built it
        return tree


class Carrier:
    """Steps on a carried state. The step is compiled once for each form."""

    __slots__ = ("_compiled", "_parameter_bytes", "_steps", "_trainable")

    def __init__(
        self,
        step: StepFunction,
        trainable: Callable[[Params], Params],
        parameter_bytes: int,
        compiled: Callable[..., Compiled],
    ) -> None:
        """Make a carrier of a step; `trainable(params)` returns the parameters that train."""

        def compiled_for(form: Form | None) -> Compiled:
            return compiled(partial(_take_steps, step, form), "state", "batches")

        self._trainable, self._parameter_bytes, self._compiled = trainable, parameter_bytes, compiled_for
        self._steps: dict[Form | None, Compiled] = {None: compiled_for(None)}

    @property
    def traces(self) -> int:
        """The number of traces, over all forms."""
        return sum(steps.traces for steps in self._steps.values())

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form that the backend chooses, if it chooses one."""
        for form in self._steps:
            if form is not None and (arrays := form.join(params, opt_state)) is not None:
                break
        else:
            form = self._new_form(params, opt_state)
            arrays = None if form is None else form.join(params, opt_state)
        if form is None or arrays is None:
            return Carried((params, opt_state))
        self._steps.setdefault(form, self._compiled(form))
        queue(arrays)
        return Carried(arrays, form)

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step on each batch in one compiled call."""
        if state.form not in self._steps:  # another step made this form
            state = self.carry(state.params, state.opt_state)
        arrays, trees, logs = self._steps[state.form](state.arrays, tuple(batches))
        return Carried(trees) if arrays is None else Carried(arrays, state.form), logs

    def _new_form(self, params: Params, opt_state: State) -> Form | None:
        """Ask the backend for a form of such a state; None where it has none, or nothing is compiled."""
        if not self._steps[None].compiles:
            return None
        params, opt_state = copy_arrays(params), copy_arrays(opt_state)  # no two leaves are the same object
        return device_backend().form(params, opt_state, self._trainable(params), self._parameter_bytes)


def _take_steps(
    step: StepFunction, form: Form | None, state: Tree, batches: tuple[Batch, ...]
) -> tuple[list[Array] | None, tuple[Params, State] | None, tuple[Logged, ...]]:
    """Take steps on a state in a form: `(arrays, trees, logs)`.

    `trees` is None, unless the state no longer fits the form; then `arrays` is None.
    """
    params, opt_state = state if form is None else form.trees(state)
    logged: list[Logged] = []
    for batch in batches:
        params, opt_state, logs = step(params, opt_state, batch)
        logged.append(logs)
    arrays = None if form is None else form.join(params, opt_state)
    return arrays, (params, opt_state) if arrays is None else None, tuple(logged)
