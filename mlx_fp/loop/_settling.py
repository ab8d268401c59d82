"""Read the logs that are still on the device into the sums of a run."""

from __future__ import annotations

from dataclasses import replace

from ..core._errors import placed
from ._hook import Stop
from ._state import Loop, LoopState, Moving
from ._totals import Entry, read

__all__ = ["read_all_but", "settled"]

_CAUSES = "a rate too high, an input that is not finite, or a label that is no class make it so"


def settled(loop: Loop, state: LoopState) -> LoopState:
    """Read all logs that are queued, which waits for the device; the plan says what a loss that is not finite does."""
    moving = state.moving
    return replace(state, moving=read_all_but(loop, state, moving, 0)) if moving.sums.queued else state


def read_all_but(loop: Loop, state: LoopState, moving: Moving, leave: int) -> Moving:
    """Read all logs but the newest ones; the plan says what a loss that is not finite does."""
    plan, requests = loop.plan, moving.requests
    lost: list[str] = []

    def leave_out(entry: Entry, loss: float) -> bool:
        *_, batch, update = entry
        message = f"the loss is {loss} at step {state.opened + update}, batch {batch} of the epoch"
        if plan.nonfinite == "raise" and requests.stop is None:
            ways = "nonfinite='skip' leaves such steps out, 'stop' ends the run there"
            raise placed(FloatingPointError(f"{message}; {_CAUSES}; {ways}"), batch=batch)
        lost.append(message)
        return plan.nonfinite == "skip"

    sums = read(moving.sums, keep=plan.keep_losses, leave=leave, leave_out=leave_out)
    if lost and plan.nonfinite == "stop":
        requests = replace(requests, diverged=True, stop=requests.stop or Stop(lost[0]))
    return Moving(moving.train, sums, moving.hooks, requests)
