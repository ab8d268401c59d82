"""The state of a run as its events carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core._types import Params, State

__all__ = ["RunState", "run_state"]


@dataclass(frozen=True, slots=True, repr=False)
class RunState:
    """Where a run stands: parameters, and what goes from step to step beside them.

    Each reading gives array objects of its own: `+=` on them changes nothing in the run.
    """

    _state: Any
    """What holds `params` and `opt_state`."""

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
    """Make the state of an event of parameters and the state beside them, for a loop of one's own.

    >>> run_state({"w": mx.array(1.0)}, {}).params["w"].item()
    1.0
    """
    return RunState(_Trees(params, opt_state))
