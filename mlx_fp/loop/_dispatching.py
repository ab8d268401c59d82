"""Tell hooks of events, and take up the requests of hooks and signals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ._event import EVENTS, Event
from ._hook import Directive, Interrupt, Save, Stop, Validate, emit_to
from ._run_state import RunState
from ._state import Loop, LoopState, Moment, Moments, Moving, Requests, World

__all__ = ["apply_directive", "dispatch", "fold_event", "with_signal"]


def dispatch(loop: Loop, state: LoopState, world: World, name: str, /, **fields: Any) -> Moments:
    """Tell hooks of an event, and yield it if the driver wants it; no record is made of one that nobody listens to."""
    if name not in loop.listened:
        return state
    moving, event = fold_event(loop, state.moving, world, name, **fields)
    if name in loop.plan.yielded:
        yield Moment(state, moving, event)
    return replace(state, moving=moving)


def fold_event(
    loop: Loop, moving: Moving, world: World, name: str, /, *args: Any, **fields: Any
) -> tuple[Moving, Event]:
    """Fold an event that somebody listens to through its hooks, and take up their requests."""
    seen = RunState(moving.train.shared())  # an event that a hook keeps has the parameters of its moment for good
    event: Event = EVENTS[name](seen, *args, **fields)
    numbers = loop.listeners.get(name)
    if not numbers:
        return moving, event
    hooks, event, asked = emit_to(numbers, loop.hooks, moving.hooks, event, loop.carry, world.asked)
    train, sums, _, requests = moving
    for each in asked:
        requests = apply_directive(loop, requests, each)
    return Moving(train if event.state is seen else event.state._state, sums, hooks, requests), event


def apply_directive(loop: Loop, requests: Requests, asked: Directive | Interrupt) -> Requests:
    """Take up the request of a hook or a signal. ValueError where the trainer has no checkpoints to save."""
    if isinstance(asked, Interrupt):
        return _interrupt(requests, asked.signal)
    if isinstance(asked, Stop):
        return requests if requests.stop is not None else replace(requests, stop=asked)
    if isinstance(asked, Validate):
        return replace(requests, validate=True)
    if isinstance(asked, Save):
        if loop.trainer.policy is None:
            raise ValueError("a hook asked to Save(), and this trainer writes no checkpoints: add checkpoints(…)")
        return replace(requests, save=True)
    return requests


def with_signal(state: LoopState, world: World) -> LoopState:
    """Take up a signal that asks the run to end."""
    why, moving = world.asked(), state.moving
    if why is None or moving.requests.interrupted:
        return state
    return replace(state, moving=moving._replace(requests=_interrupt(moving.requests, why)))


def _interrupt(requests: Requests, why: str) -> Requests:
    return replace(requests, interrupted=True, stop=requests.stop or Stop(why))
