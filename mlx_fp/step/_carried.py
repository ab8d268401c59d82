"""The state from step to step, in the form that the backend gives it, and steps that take it in that form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..compile._compiled import Compiled
from ..core._mlx import mx
from ..core._types import Batch, Params, State, Tree
from ..core.backend import Form, device_backend
from ..tree._paths import copy_arrays

__all__ = ["Carried", "Carrier", "Logged"]

Logged = tuple[State, State, int]
"""The logs of a step, the weight of each of those that are means, and the number of examples in its batch."""

StepFunction = Callable[[Params, State, Batch], tuple[Params, State, Logged]]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Carried:
    """The parameters and state between two steps; made by `Step.carry` and `Step.advance`.

    `arrays` is a list of arrays in that form, or the pair of trees where there is no form.
    """

    arrays: Any
    form: Form | None = None

    @property
    def params(self) -> Params:
        """The parameters and buffers as a tree."""
        return self._tree(0)

    @property
    def opt_state(self) -> State:
        """The random stream, the optimiser's state, and the memory of metrics, as a tree."""
        state: State = self._tree(1)
        return state

    def lazy_opt_state(self) -> State:
        """Return the state as a tree of which nothing is computed before it is asked for."""
        state: State = self.arrays[1] if self.form is None else self.form.trees(self.arrays)[1]
        return state

    def shared(self) -> Carried:
        """Return another state with the same arrays, which keeps them when this one gives them up."""
        return Carried(self.arrays, self.form)

    def release(self) -> None:
        """Give up the arrays, so that whoever still holds this state no longer keeps them in memory."""
        object.__setattr__(self, "arrays", None)

    def _tree(self, which: int) -> Tree:
        if self.arrays is None:
            raise RuntimeError("this state has been released: a run went on from it, and holds a later one")
        if self.form is None:
            return self.arrays[which]
        tree = self.form.trees(self.arrays)[which]
        with suppress(RuntimeError):  # raised again when the array is evaluated
            mx.async_eval(tree)  # a lazy array can only be evaluated by the thread that built it
        return tree


class Carrier:
    """Steps on a carried state, each form compiled once."""

    __slots__ = ("_compiled", "_kept", "_parameter_bytes", "_steps")

    def __init__(
        self,
        step: StepFunction,
        kept: Callable[[Params], Params],
        parameter_bytes: int,
        compiled: Callable[..., Compiled],
    ) -> None:
        """Make a carrier of a step; `kept(params)` gives the parameters that train."""

        def made(form: Form | None) -> Compiled:
            return compiled(partial(_take, step, form), "state", "batches")

        self._kept, self._parameter_bytes, self._compiled = kept, parameter_bytes, made
        self._steps: dict[Form | None, Compiled] = {None: made(None)}

    @property
    def traces(self) -> int:
        """How often steps have been traced, over all forms."""
        return sum(steps.traces for steps in self._steps.values())

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form that the backend gives it, if any."""
        for form in self._steps:
            if form is not None and (arrays := form.join(params, opt_state)) is not None:
                break
        else:
            form = self._new_form(params, opt_state)
            arrays = None if form is None else form.join(params, opt_state)
        if form is None or arrays is None:
            return Carried((params, opt_state))
        self._steps.setdefault(form, self._compiled(form))
        mx.async_eval(arrays)
        return Carried(arrays, form)

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step on each batch in one compiled call."""
        if state.form not in self._steps:  # the form of another step
            state = self.carry(state.params, state.opt_state)
        arrays, trees, logs = self._steps[state.form](state.arrays, tuple(batches))
        return Carried(trees) if arrays is None else Carried(arrays, state.form), logs

    def _new_form(self, params: Params, opt_state: State) -> Form | None:
        if not self._steps[None].compiles:
            return None
        params, opt_state = copy_arrays(params), copy_arrays(opt_state)  # no two leaves are one object
        return device_backend().form(params, opt_state, self._kept(params), self._parameter_bytes)


def _take(step: StepFunction, form: Form | None, state: Any, batches: tuple[Batch, ...]) -> tuple[Any, Any, Any]:
    """Take steps on a state in a form; return its arrays, or trees where they no longer fit the form, and the logs."""
    params, opt_state = state if form is None else form.trees(state)
    logged = []
    for batch in batches:
        params, opt_state, each = step(params, opt_state, batch)
        logged.append(each)
    arrays = None if form is None else form.join(params, opt_state)
    return arrays, (params, opt_state) if arrays is None else None, tuple(logged)
