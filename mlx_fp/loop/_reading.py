"""Read the logs that are still on the device into the sums of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core._errors import placed
from ..core._mlx import mx
from ..core._types import Array
from ..tree._paths import flat
from ._directive import Stop
from ._state import Loop, LoopState, Moving
from ._totals import Entry, read

__all__ = ["check_parameters", "nonfinite_leaves", "nonfinite_paths", "read_all", "read_all_but"]

_CAUSES = "a rate too high, an input that is not finite, or a label that is no class make it so"


def read_all(loop: Loop, state: LoopState) -> LoopState:
    """Read all logs that are queued, which waits for the device; a loss that is not finite is treated as planned."""
    moving = state.moving
    return replace(state, moving=read_all_but(loop, state, moving, 0)) if moving.sums.queued else state


def nonfinite_paths(loop: Loop, state: LoopState) -> list[str]:
    """Name the parameters and buffers that are not finite, but for those that were so at the start of the run."""
    named = {
        path: leaf for path, leaf in flat(state.moving.train.params).items() if path not in loop.nonfinite_at_start
    }
    return nonfinite_leaves(named)


def check_parameters(loop: Loop, state: LoopState) -> LoopState:
    """Return the state at the end of an epoch; parameters or buffers that are not finite end it as such a loss does."""
    told = state.stop is not None and state.stop.diverged
    if told or loop.plan.nonfinite not in ("raise", "stop") or not (odd := nonfinite_paths(loop, state)):
        return state
    message = f"{', '.join(odd)} not finite after step {state.steps}, though the losses are"
    if loop.plan.nonfinite == "raise":
        raise FloatingPointError(f"{message}; {_CAUSES}; nonfinite='skip' leaves such steps out")
    return state.with_requests(diverged=True, stop=state.stop or Stop(message))


def nonfinite_leaves(named: Mapping[str, Array]) -> list[str]:
    """Name the leaves that are not finite; the device is waited for once.

    >>> nonfinite_leaves({"w": mx.array(1.0), "b": mx.array(float("nan"))})
    ['b']
    """
    if not named or mx.all(mx.stack([mx.all(mx.isfinite(leaf)) for leaf in named.values()])).item():
        return []
    return [path for path, leaf in named.items() if not mx.all(mx.isfinite(leaf)).item()]


def read_all_but(loop: Loop, state: LoopState, moving: Moving, leave: int) -> Moving:
    """Read all logs but the newest ones; the plan says how a loss that is not finite is treated."""
    plan, requests = loop.plan, moving.requests
    lost: list[str] = []

    def leave_out(entry: Entry, loss: float) -> bool:
        *_, batch, update = entry
        message = f"the loss is {loss} at step {state.epoch_start_step + update}, batch {batch} of the epoch"
        if plan.nonfinite == "raise" and not (requests.stop is not None and requests.stop.diverged):
            ways = "nonfinite='skip' leaves such steps out, 'stop' ends the run there"
            raise placed(FloatingPointError(f"{message}; {_CAUSES}; {ways}"), batch=batch)
        lost.append(message)
        return plan.nonfinite == "skip"

    sums = read(moving.sums, keep=plan.keep_losses, leave=leave, leave_out=leave_out)
    if lost and plan.nonfinite == "stop":
        requests = replace(requests, diverged=True, stop=requests.stop or Stop(lost[0]))
    return Moving(moving.train, sums, moving.hooks, requests)
