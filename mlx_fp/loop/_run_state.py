"""The state of a run as its events hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..core._types import Params, State

__all__ = ["RunState", "run_state"]


class TrainState(Protocol):
    """A record with parameters and optimiser state."""

    @property
    def params(self) -> Params:
        """The parameters and buffers."""

    @property
    def opt_state(self) -> State:
        """The random stream, the optimiser's state, and the memory of metrics."""


@dataclass(frozen=True, slots=True, repr=False)
class RunState:
    """The parameters of a run at one moment, and the state that goes from step to step beside them.

    Each reading returns new array objects: `+=` on them changes nothing in the run.
    """

    _state: TrainState

    @property
    def params(self) -> Params:
        """The parameters and buffers."""
        from ..tree._paths import copy_arrays

        return copy_arrays(self._state.params)

    @property
    def opt_state(self) -> State:
        """The random stream, the optimiser's state, and the memory of metrics."""
        from ..tree._paths import copy_arrays

        state: State = copy_arrays(self._state.opt_state)
        return state


@dataclass(frozen=True, slots=True)
class _Trees:
    params: Params
    opt_state: State


def run_state(params: Params, opt_state: State) -> RunState:
    """Return the state of an event from parameters and optimiser state, for a loop of the user's own.

    >>> run_state({"w": mx.array(1.0)}, {}).params["w"].item()
    1.0
    """
    return RunState(_Trees(params, opt_state))
