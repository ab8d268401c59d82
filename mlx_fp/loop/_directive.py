"""Directives: the requests of hooks, which the loop carries out."""

from __future__ import annotations

from dataclasses import dataclass

from ..core._types import Params, State, Tree

__all__ = ["Directive", "HookResult", "Interrupt", "Replace", "Save", "Stop", "Validate"]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run after the present step.

    Args:
        reason: The reason, for `report.stop_reason`.
        final: Whether the run has ended for good: resumed with the same hook it does nothing more. With False it only
            pauses, for example at a limit of time, and a resumed run goes on.
        diverged: Whether the reason is a loss that is not finite, so that the run raises no error for this loss.

    >>> Stop("good enough")
    Stop(reason='good enough', final=True, diverged=False)
    """

    reason: str
    final: bool = True
    diverged: bool = False


@dataclass(frozen=True, slots=True)
class Replace:
    """Continue with other parameters, optimiser state or gradients.

    Args:
        params: Parameters with the paths, shapes, dtypes and containers of the present ones. None: unchanged.
        opt_state: The same for the optimiser state, for example from `optim.scale_rates`.
        grads: The same for gradients; only from `after_backward`.

    >>> Replace(params={"w": 1.0}).grads is None
    True
    """

    params: Params | None = None
    opt_state: State | None = None
    grads: Tree | None = None


@dataclass(frozen=True, slots=True)
class Save:
    """Write a checkpoint after the present step. A trainer without `checkpoints(…)` raises ValueError.

    >>> Save()
    Save()
    """


@dataclass(frozen=True, slots=True)
class Validate:
    """Validate after the present step, in addition to the planned validations.

    >>> Validate()
    Validate()
    """


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A signal that came while hooks ran. No hook returns it: `emit_to` adds it to the directives, in order."""

    signal: str


Directive = Stop | Replace | Save | Validate
"""A request of a hook."""
HookResult = Directive | None
"""The result of a hook: a directive, or None."""
