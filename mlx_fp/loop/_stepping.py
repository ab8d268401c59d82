"""One call of the step of a run, and the events before it, in it and after it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from ..core._types import Batch
from ..step._carried import Carried, Logged
from ..step._rows import example_count
from ._dispatching import fold_event
from ._event import AfterBackward
from ._state import Loop, LoopState, Moment, Moving, World
from ._totals import add

__all__ = ["advance", "dispatch_after_step", "release_states", "step_with_events"]

Group = tuple[Batch, ...]
"""The batches of one call."""

StepFields = tuple[int, Batch, int, int]
"""The fields by which the events of a step know it: its epoch, its batch, its number in the run and in the epoch."""

Stepped = tuple[Moving, tuple[Logged, ...]]
At = Callable[[str], None]


def advance(loop: Loop, moving: Moving, group: Group) -> Stepped:
    """Take the steps of one call, and count their batches: the state then, and the logs of each.

    Nothing is queued on the device yet: the old parameters would be kept until it is done.
    """
    if loop.plan.accumulate > 1:
        old = moving.train
        params, opt_state, logged = loop.step.accumulated(old.params, old.opt_state, group)
        return _count_steps(moving, Carried((params, opt_state)), (logged,), len(group)), (logged,)
    train, each = loop.step.advance(moving.train, group)
    return _count_steps(moving, train, each), each


def step_with_events(
    loop: Loop, state: LoopState, moving: Moving, group: Group, world: World, at: At
) -> Generator[Moment, None, Stepped]:
    """Tell of the steps that are about to be taken, and take them."""
    if "before_step" in loop.listened:
        at("before_step")
        for place in _step_fields(loop, state, moving, group, before=True):
            moving, event = fold_event(loop, moving, world, "before_step", *place)
            if "before_step" in loop.plan.yielded:
                yield Moment(state, moving, event)
    at("step")
    if not loop.takes_halves:
        return advance(loop, moving, group)
    (place,) = _step_fields(loop, state, moving, group, before=True)
    return (yield from _step_in_halves(loop, state, moving, group, place, world, at))


def dispatch_after_step(
    loop: Loop, state: LoopState, moving: Moving, group: Group, logged: tuple[Logged, ...], world: World, at: At
) -> Generator[Moment, None, Moving]:
    """Tell of the steps that were taken."""
    at("after_step")
    wanted = "after_step" in loop.plan.yielded
    for place, (logs, *_) in zip(_step_fields(loop, state, moving, group, before=False), logged, strict=True):
        moving, event = fold_event(loop, moving, world, "after_step", *place, logs["loss"], logs)
        yield Moment(state, moving, event if wanted else None)
    at("step")
    return moving


def release_states(held: tuple[Carried, ...], moving: Moving) -> tuple[Carried, ...]:
    """Release states that a step has been taken from; return none."""
    for one in held:
        if one is not moving.train:
            one.release()
    return ()


def _step_in_halves(
    loop: Loop, state: LoopState, moving: Moving, group: Group, place: StepFields, world: World, at: At
) -> Generator[Moment, None, Stepped]:
    """Take a step in its two halves, with the gradients that hooks make of them between."""
    params, opt_state = moving.train.params, moving.train.opt_state
    several = loop.plan.accumulate > 1
    found = (
        loop.step.accumulated_gradients(params, opt_state, group)
        if several
        else loop.step.gradients(params, opt_state, place[1])
    )
    grads, rest, opt_state, logs, weights = found
    moving = moving._replace(train=loop.carry(params, opt_state))
    at("after_backward")
    moving, event = fold_event(loop, moving, world, "after_backward", *place, logs["loss"], grads)
    if "after_backward" in loop.plan.yielded:
        yield Moment(state, moving, event)
    at("step")
    grads = event.grads if isinstance(event, AfterBackward) else grads
    train = loop.carry(*loop.step.update(moving.train.params, moving.train.opt_state, grads, rest))
    logged = ((logs, weights, sum(map(example_count, group))),)
    return _count_steps(moving, train, logged, len(group)), logged


def _count_steps(moving: Moving, train: Carried, logged: tuple[Logged, ...], batches: int = 1) -> Moving:
    """Return the state after steps, each on so many batches."""
    _, sums, hooks, requests = moving
    for logs, weights, examples in logged:
        sums = add(sums, logs, weights, examples, batches)
    return Moving(train, sums, hooks, requests)


def _step_fields(loop: Loop, state: LoopState, moving: Moving, group: Group, *, before: bool) -> Sequence[StepFields]:
    """List the fields that say which steps these are."""
    sums, several = moving.sums, loop.plan.accumulate > 1
    count = len(group)
    batch, update = sums.batches, sums.updates
    if not before:
        batch, update = batch - count, update - (1 if several else count)
    step = state.epoch_start_step + update
    if several:
        return ((state.epoch, list(group), step, batch),)
    if count == 1:  # no list for the usual step
        return ((state.epoch, group[0], step, batch),)
    return [(state.epoch, one, step + i, batch + i) for i, one in enumerate(group)]
