"""The objective of a pass: the loss, or one of the figures that the loss returns.

A verb chooses it by an entry of the state that it hands to the inner pass function. So each pass function between the
verb and the loss passes it on.
"""

from __future__ import annotations

from ..core._errors import unknown
from ..core._types import State

__all__ = ["TOTAL", "objective_of", "with_objective", "without_objective"]

_OBJECTIVE = "objective of the pass"
"""The name of the objective in the state of a pass. It is a text, and no compiled function receives it."""

TOTAL = "loss of the step"
"""The name of the loss among the logs of a pass with another objective."""


def with_objective(opt_state: State, name: str) -> State:
    """Return the state for a pass that differentiates the figure `name` in place of the loss."""
    return {**opt_state, _OBJECTIVE: name}


def without_objective(opt_state: State) -> State:
    """Return the state as a step returns it."""
    return {name: value for name, value in opt_state.items() if name != _OBJECTIVE}


def objective_of(opt_state: State, logs: State, weights: State) -> tuple[State, State]:
    """Return the logs of a loss, and their weights, with the objective of the pass under `loss`.

    Raises:
        ValueError: The loss returns no figure of that name.

    >>> objective_of(with_objective({}, "a"), {"loss": 3, "a": 1}, {"loss": 8, "a": 4})
    ({'loss': 1, 'a': 1, 'loss of the step': 3}, {'loss': 4, 'a': 4, 'loss of the step': 8})
    """
    name = opt_state.get(_OBJECTIVE)
    if name is None:
        return logs, weights
    if name not in logs or name == "loss":
        figures = [figure for figure in logs if figure != "loss"]
        raise ValueError(
            f"pcgrad takes {unknown('figure of the loss', name, figures)}: the loss returns (loss, {{name: figure}})"
        )
    logs, weights = ({**values, "loss": values[name], TOTAL: values["loss"]} for values in (logs, weights))
    return logs, weights
