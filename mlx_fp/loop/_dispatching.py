"""Dispatch events to hooks, and apply the directives of hooks and signals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..step._carried import Carried
from ._directive import Directive, Interrupt, Save, Stop, Validate
from ._emitting import emit_to
from ._event import Event
from ._event_table import EVENTS
from ._requests import Requests
from ._run_state import RunState
from ._state import Loop, LoopState, Moment, Moments, Moving, Ports

__all__ = ["agree", "apply_directive", "dispatch", "fold_event", "with_signal"]


def dispatch(loop: Loop, state: LoopState, ports: Ports, name: str, /, **fields: object) -> Moments:
    """Dispatch an event to its hooks, and yield it if the driver listens. Without listeners no record is made."""
    if name not in loop.listened:
        return state
    moving, event = fold_event(loop, state.moving, ports, name, **fields)
    if name in loop.plan.yielded:
        yield Moment(state, moving, event)
    return replace(state, moving=moving)


def fold_event(
    loop: Loop, moving: Moving, ports: Ports, name: str, /, *args: Any, **fields: Any
) -> tuple[Moving, Event]:
    """Fold an event through its hooks, and apply their directives."""
    seen = RunState(moving.train.shared())  # a hook may keep the event: it then keeps the parameters of its moment
    event: Event = EVENTS[name](seen, *args, **fields)
    numbers = loop.listeners.get(name)
    if not numbers:
        return moving, event
    hooks, event, directives = emit_to(numbers, loop.hooks, moving.hooks, event, loop.carry, ports.asked)
    train, sums, _, requests = moving
    for directive in directives:
        requests = apply_directive(loop, requests, directive)
    return Moving(train if event.state is seen else _carried(event), sums, hooks, requests), event


def apply_directive(loop: Loop, requests: Requests, directive: Directive | Interrupt) -> Requests:
    """Return the requests with one of a hook or a signal. Raise ValueError for `Save` without checkpoints."""
    if isinstance(directive, Interrupt):
        return _interrupt(requests, directive.signal)
    if isinstance(directive, Stop):
        return requests if requests.stop is not None else replace(requests, stop=directive)
    if isinstance(directive, Validate):
        return replace(requests, validate=True)
    if isinstance(directive, Save):
        if loop.trainer.policy is None:
            raise ValueError("a hook asked to Save(), and this trainer writes no checkpoints: add checkpoints(…)")
        return replace(requests, save=True)
    return requests


def agree(state: LoopState, ports: Ports, *, last: bool = False) -> LoopState:
    """Return the state with the requests of all processes. After the last call the run sends no message."""
    requests = ports.link.agree(state.moving.requests, last=last)
    return replace(state, moving=state.moving._replace(requests=requests))


def with_signal(state: LoopState, ports: Ports) -> LoopState:
    """Return the state with the request of a signal, if one has come."""
    name, moving = ports.asked(), state.moving
    if name is None or moving.requests.interrupted:
        return state
    return replace(state, moving=moving._replace(requests=_interrupt(moving.requests, name)))


def _interrupt(requests: Requests, name: str) -> Requests:
    return replace(requests, interrupted=True, stop=requests.stop or Stop(name))


def _carried(event: Event) -> Carried:
    """Return the parameters and optimiser state that a hook has put into an event."""
    state = event.state._state
    assert isinstance(state, Carried)
    return state
