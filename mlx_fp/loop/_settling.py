"""Read the logs that are still on the device into the sums of a run."""

from __future__ import annotations

from dataclasses import replace

from ..core._errors import placed
from ._hook import Stop
from ._state import Loop, LoopState, Moving
from ._totals import read_oldest

__all__ = ["read", "settled"]

_CAUSES = "a rate too high, an input that is not finite, or a label that is no class make it so"


def settled(loop: Loop, state: LoopState) -> LoopState:
    """Read all logs that are queued, which waits for the device; the plan says what a loss that is not finite does."""
    moving = state.moving
    while moving.sums.queued:
        moving = read(loop, state, moving)
    return replace(state, moving=moving)


def read(loop: Loop, state: LoopState, moving: Moving) -> Moving:
    """Read the oldest logs; a loss that is not finite ends the run, is left out, or counts, as the plan says."""
    plan, requests = loop.plan, moving.requests
    lost: list[str] = []

    def leave_out(batch: int, loss: float) -> bool:
        message = f"the loss is {loss} at step {state.opened + batch}, batch {batch} of the epoch"
        if plan.nonfinite == "raise" and requests.stop is None:
            ways = "nonfinite='skip' leaves such steps out, 'stop' ends the run there"
            raise placed(FloatingPointError(f"{message}; {_CAUSES}; {ways}"), batch=batch)
        lost.append(message)
        return plan.nonfinite == "skip"

    sums = read_oldest(moving.sums, plan.keep_losses, leave_out)
    if lost and plan.nonfinite == "stop":
        requests = replace(requests, diverged=True, stop=requests.stop or Stop(lost[0]))
    return Moving(moving.train, sums, moving.hooks, requests)
