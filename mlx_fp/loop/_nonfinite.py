"""Read logs from the device into the sums of a run, and treat values that are not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from more_itertools import partition

from ..compile._evaluation import wait_for
from ..core._errors import placed
from ..core._mlx import mx
from ..core._types import Array
from ..tree._paths import flat
from ._directive import Stop
from ._state import Loop, LoopState, Moving
from ._totals import Entry, entries_of, read

__all__ = ["check_parameters", "nonfinite_leaves", "nonfinite_paths", "read_all", "read_all_but"]

_LARGE = 1 << 20
"""Elements of a leaf that is checked alone."""

_CAUSES = "causes are a learning rate that is too high, an input that is not finite, or a label that is no class"


def read_all(loop: Loop, state: LoopState) -> LoopState:
    """Read all queued logs, which waits for the device. `nonfinite=` says how to treat a loss that is not finite."""
    moving = state.moving
    return replace(state, moving=read_all_but(loop, state, moving, 0)) if moving.sums.queued else state


def nonfinite_paths(loop: Loop, state: LoopState) -> list[str]:
    """List the parameters and buffers that are not finite, without those that were so at the start of the run."""
    named = {
        path: leaf for path, leaf in flat(state.moving.train.params).items() if path not in loop.nonfinite_at_start
    }
    return nonfinite_leaves(named)


def check_parameters(loop: Loop, state: LoopState) -> LoopState:
    """Return the state at the end of an epoch. Parameters that are not finite end the run as such a loss does."""
    diverged = state.stop is not None and state.stop.diverged
    if diverged or loop.plan.nonfinite not in ("raise", "stop") or not (paths := nonfinite_paths(loop, state)):
        return state
    message = f"{', '.join(paths)} not finite after step {state.steps}, though the losses are"
    if loop.plan.nonfinite == "raise":
        raise FloatingPointError(f"{message}; {_CAUSES}; nonfinite='skip' leaves such steps out")
    return state.with_requests(diverged=True, stop=state.stop or Stop(message))


def nonfinite_leaves(named: Mapping[str, Array]) -> list[str]:
    """List the leaves that are not finite.

    This waits for the device once, and once for each large leaf: a check takes half as much memory as its leaf.

    >>> nonfinite_leaves({"w": mx.array(1.0), "b": mx.array(float("nan"))})
    ['b']
    """
    small, large = partition(lambda leaf: leaf.size >= _LARGE, named.values())
    if _are_finite(list(small)) and all(_are_finite([leaf]) for leaf in large):
        return []
    return [path for path, leaf in named.items() if not _are_finite([leaf])]


def _are_finite(leaves: Sequence[Array]) -> bool:
    return not leaves or bool(mx.all(mx.stack([mx.all(mx.isfinite(leaf)) for leaf in leaves])).item())


def read_all_but(loop: Loop, state: LoopState, moving: Moving, leave: int) -> Moving:
    """Read all logs but the newest `leave` ones. The plan says how to treat a loss that is not finite."""
    plan, requests = loop.plan, moving.requests
    messages: list[str] = []

    def leave_out(entry: Entry, loss: float) -> bool:
        *_, batch, update = entry
        message = f"the loss is {loss} at step {state.epoch_start_step + update}, batch {batch} of the epoch"
        if plan.nonfinite == "raise" and not (requests.stop is not None and requests.stop.diverged):
            ways = "nonfinite='skip' leaves such steps out, 'stop' ends the run there"
            raise placed(FloatingPointError(f"{message}; {_CAUSES}; {ways}"), batch=batch)
        messages.append(message)
        return plan.nonfinite == "skip"

    if loop.sync is None:
        wait_for([logs for logs, *_ in entries_of(moving.sums)])
    sums = read(moving.sums, keep=plan.keep_losses, leave=leave, leave_out=leave_out)
    if messages and plan.nonfinite == "stop":
        requests = replace(requests, diverged=True, stop=requests.stop or Stop(messages[0]))
    return Moving(moving.train, sums, moving.hooks, requests)
