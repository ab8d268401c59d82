"""One call of the step of a run, with the events before, within and after it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from ..core._types import Batch
from ..data._share import Share
from ..step._carried import Carried, Logged
from ..step._rows import example_count
from ._debugging import explain
from ._dispatching import fold_event
from ._event import AfterBackward
from ._state import Loop, LoopState, Moment, Moving, Ports
from ._totals import add

__all__ = ["advance", "dispatch_after_step", "release_states", "step_with_events"]

Group = tuple[Batch, ...]
"""The batches of one call."""

StepFields = tuple[int, Batch, int, int]
"""The first fields of the events of a step: epoch, batch, step of the run, and index of the batch in the epoch."""

Stepped = tuple[Moving, tuple[Logged, ...]]
"""The state after the steps of a call, and the logs of each step."""

SetStage = Callable[[str], None]
"""A function that sets the present stage, which error notes name."""


def advance(loop: Loop, moving: Moving, group: Group, ports: Ports) -> Stepped:
    """Take the steps of one call, and count their batches. Return the new state, and the logs of each step.

    Nothing is queued on the device yet: queued work would keep the old parameters in memory until it is done.
    """
    parts = ports.link.parts(group, moving.requests)
    if loop.plan.accumulate > 1:
        before = moving.train
        params, opt_state, logged = loop.step.accumulated(before.params, before.opt_state, parts)
        logs = ports.link.received((logged,), group)
        return _count_steps(moving, Carried((params, opt_state)), logs, len(group)), logs
    good = moving.train.shared() if loop.plan.debug else None
    train, logs = loop.step.advance(moving.train, parts)
    logs = ports.link.received(logs, group)
    if good is not None:
        explain(loop.step, good, parts[0], logs[0], loop.step.trainable(train.params))
    return _count_steps(moving, train, logs), logs


def step_with_events(
    loop: Loop,
    state: LoopState,
    moving: Moving,
    group: Group,
    ports: Ports,
    set_stage: SetStage,
) -> Generator[Moment, None, Stepped]:
    """Dispatch the events before the steps of a call, and take the steps."""
    if "before_step" in loop.listened:
        set_stage("before_step")
        for place in _step_fields(loop, state, moving, group, before=True):
            moving, event = fold_event(loop, moving, ports, "before_step", *place)
            if "before_step" in loop.plan.yielded:
                yield Moment(state, moving, event)
    set_stage("step")
    if not loop.takes_halves:
        return advance(loop, moving, group, ports)
    (place,) = _step_fields(loop, state, moving, group, before=True)
    return (yield from _step_in_halves(loop, state, moving, group, place, ports, set_stage))


def dispatch_after_step(
    loop: Loop,
    state: LoopState,
    moving: Moving,
    group: Group,
    logged: tuple[Logged, ...],
    ports: Ports,
    set_stage: SetStage,
) -> Generator[Moment, None, Moving]:
    """Dispatch the events after the steps of a call."""
    set_stage("after_step")
    is_yielded = "after_step" in loop.plan.yielded
    for place, (logs, *_) in zip(_step_fields(loop, state, moving, group, before=False), logged, strict=True):
        moving, event = fold_event(loop, moving, ports, "after_step", *place, logs["loss"], logs)
        yield Moment(state, moving, event if is_yielded else None)
    set_stage("step")
    return moving


def release_states(states: tuple[Carried, ...], moving: Moving) -> tuple[Carried, ...]:
    """Release the states from which a step has been taken. Return an empty tuple."""
    for carried in states:
        if carried is not moving.train:
            carried.release()
    return ()


def _step_in_halves(
    loop: Loop,
    state: LoopState,
    moving: Moving,
    group: Group,
    place: StepFields,
    ports: Ports,
    set_stage: SetStage,
) -> Generator[Moment, None, Stepped]:
    """Take a step in two halves, gradients and update, with the hooks on the gradients between them."""
    params, opt_state = moving.train.params, moving.train.opt_state
    several, good = loop.plan.accumulate > 1, moving.train.shared() if loop.plan.debug else None
    parts = ports.link.parts(group, moving.requests)
    half = (
        loop.step.accumulated_gradients(params, opt_state, parts)
        if several
        else loop.step.gradients(params, opt_state, parts[0])
    )
    grads, rest, opt_state, logs, weights = half
    logged = ports.link.received(((logs, weights, sum(map(example_count, group))),), group)
    if good is not None:
        explain(loop.step, good, parts[0], logged[0], grads)
    moving = moving._replace(train=loop.carry(params, opt_state))
    set_stage("after_backward")
    moving, event = fold_event(loop, moving, ports, "after_backward", *place, logged[0][0]["loss"], grads)
    if "after_backward" in loop.plan.yielded:
        yield Moment(state, moving, event)
    set_stage("step")
    grads = event.grads if isinstance(event, AfterBackward) else grads
    train = loop.carry(*loop.step.update(moving.train.params, moving.train.opt_state, grads, rest))
    return _count_steps(moving, train, logged, len(group)), logged


def _count_steps(moving: Moving, train: Carried, logged: tuple[Logged, ...], batches: int = 1) -> Moving:
    """Return the state after steps, each on `batches` batches."""
    _, sums, hooks, requests = moving
    for logs, weights, examples in logged:
        sums = add(sums, logs, weights, examples, batches)
    return Moving(train, sums, hooks, requests)


def _step_fields(loop: Loop, state: LoopState, moving: Moving, group: Group, *, before: bool) -> Sequence[StepFields]:
    """List the first fields of the events of the steps of a call."""
    sums, several = moving.sums, loop.plan.accumulate > 1
    count = len(group)
    group = tuple(each.batch if isinstance(each, Share) else each for each in group)
    batch, update = sums.batches, sums.updates
    if not before:
        batch, update = batch - count, update - (1 if several else count)
    step = state.epoch_start_step + update
    if several:
        return ((state.epoch, list(group), step, batch),)
    if count == 1:  # a tuple is faster than a list for the usual step
        return ((state.epoch, group[0], step, batch),)
    return [(state.epoch, each, step + i, batch + i) for i, each in enumerate(group)]
