"""The steps of one epoch of a run: batches in, parameters and logs out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from ..core._errors import located
from ..core._mlx import mx
from ..core._types import Batch, State
from ..step._carried import Carried
from ..task._folds import start, values
from ..tree._paths import leaves
from ._checkpointing import save_after_step, saved_on_error
from ._event import AfterBackward
from ._settling import read, settled
from ._state import Loop, LoopState, Moment, Moments, Moving, World
from ._telling import fire, heard
from ._totals import Means, add, check_names, close, examples, reserved_names
from ._validation import validated_now

__all__ = ["grouped", "trained"]

Place = tuple[int, Batch, int, int]
"""The fields by which the events of a step know it: its epoch, its batch, its number in the run and in the epoch."""

Trained = Generator[Moment, None, "tuple[LoopState, Means | None, bool]"]
Stepped = tuple[Moving, tuple[State, ...]]
Telling = Generator[Moment, None, Stepped]

_STEP_EVENTS = ("before_step", "after_backward", "after_step")


def trained(loop: Loop, state: LoopState, world: World) -> Trained:
    """Train on the rest of an epoch: `(state, means, whether it was all of it)`; no means where there was no batch."""
    plan, ahead, stage, taken = loop.plan, list[Batch](), "data", 0
    silent, opened = loop.listened.isdisjoint(_STEP_EVENTS), state.moving.train
    state = _begun(loop, state)
    moving = state.moving
    held: tuple[Carried, ...] = (opened, moving.train)  # callers hold these to the end of the epoch

    def at(name: str) -> None:
        nonlocal stage
        stage = name

    where = {"split": "train", "epoch": state.epoch, "batch": lambda: moving.sums.batches - taken + len(ahead)}
    rescue = saved_on_error(loop, lambda: replace(state, moving=moving), world, lambda: stage)
    with rescue, located(**where, stage=lambda: stage), closing(_opened(loop, state)) as batches:
        for group in () if state.stop is not None else grouped(batches, plan.steps_per_call, ahead):
            if silent:
                stage = "step"
                moving, logs = _advanced(loop, moving, group)
            else:
                moving, logs = yield from _stepped(loop, state, moving, group, world, at)
            taken = len(group)
            yield Moment(state, moving)
            held = _released(held, moving)
            _queued(loop, moving, logs)
            if "after_step" in loop.listened:
                moving = yield from _told_after(loop, state, moving, group, logs, world, at)
            while moving.sums.queued > loop.in_flight:
                moving = read(loop, state, moving)
            taken = 0
            if moving.requests.validate or world.asked() is not None or world.writer is not None:
                stage = "checkpoint"
                state = yield from _between(loop, replace(state, moving=moving), world, len(group))
                moving, held = state.moving, (state.moving.train,)
            if moving.requests.stop is not None:
                break
            stage = "data"
        whole = moving.requests.stop is None or moving.sums.batches == plan.train.size
        state = replace(state, moving=moving)
        if not moving.sums.batches and moving.requests.stop is not None:
            return state, None, whole
        return *_summed(loop, state), whole


def grouped(batches: Iterable[Batch], count: int, ahead: list[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yield tuples of `count` batches of one shape each, and the batches that do not fit by themselves, in order.

    `ahead` holds those that were read and not yet yielded.

    >>> [len(group) for group in grouped([mx.zeros((2,))] * 5, 2, [])]
    [2, 2, 1]
    """
    if count == 1:
        yield from zip(batches, strict=True)
        return
    for batch in batches:
        ahead.append(batch)
        if len(ahead) == count:
            alike = all(_shapes(one) == _shapes(batch) for one in ahead)
            yield from _taken(ahead, count if alike else 1)
    yield from _taken(ahead, 1)


def _taken(ahead: list[Batch], count: int) -> Iterator[tuple[Batch, ...]]:
    while ahead:
        group = tuple(ahead[:count])
        del ahead[:count]
        yield group


def _shapes(batch: Batch) -> list[Any]:
    return [(getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in leaves(batch)]


def _opened(loop: Loop, state: LoopState) -> Any:
    return loop.plan.train.open(state.cursor, kind="train")


def _begun(loop: Loop, state: LoopState) -> LoopState:
    """Return the state with metrics that have seen no batch of the epoch, unless it was begun before."""
    if state.cursor.index:
        return state
    train = state.moving.train
    opt_state = {**train.opt_state, "metrics": start(loop.step.metrics)}
    return replace(state, moving=state.moving._replace(train=loop.carry(train.params, opt_state)))


def _between(loop: Loop, state: LoopState, world: World, taken: int) -> Moments:
    """Between two steps, do what a signal or a hook has asked, and write what is due."""
    state = heard(state, world)
    if state.moving.requests.validate:
        state = yield from validated_now(loop, state, world, state.epoch)
    return (yield from save_after_step(loop, state, world, taken))


def _summed(loop: Loop, state: LoopState) -> tuple[LoopState, Means]:
    """Read all that is queued, and return what the epoch came to."""
    if loop.plan.sync == "epoch":
        mx.eval(state.moving.train.arrays)
    state = settled(loop, state)
    metrics = values(loop.step.metrics, state.moving.train.opt_state["metrics"])
    return state, close(state.moving.sums, loop.plan.train, metrics, loop.plan.reduce)


def _released(held: tuple[Carried, ...], moving: Moving) -> tuple[Carried, ...]:
    """Release states that a step has been taken from; return none."""
    for one in held:
        if one is not moving.train:
            one.release()
    return ()


def _advanced(loop: Loop, moving: Moving, group: tuple[Batch, ...]) -> Stepped:
    """Take the steps in one call, and count their batches: the state then, and the logs of each.

    Nothing is queued on the device yet: the old parameters would be kept until it is done.
    """
    train, logs = loop.step.advance(moving.train, group)
    return _counted(moving, train, logs, group), logs


def _counted(moving: Moving, train: Carried, logs: tuple[State, ...], group: tuple[Batch, ...]) -> Moving:
    _, sums, hooks, requests = moving
    for one, batch in zip(logs, group, strict=True):
        sums = add(sums, one, examples(batch))
    return Moving(train, sums, hooks, requests)


def _queued(loop: Loop, moving: Moving, logs: tuple[State, ...]) -> None:
    """Queue the steps on the device; ValueError where the first of an epoch reports under a name that is taken."""
    if moving.sums.batches == len(logs):
        check_names(logs[0], reserved_names(loop.step.metrics))
    if loop.sync is not None:
        loop.sync(moving.train.arrays, logs)


def _places(state: LoopState, first: int, group: tuple[Batch, ...]) -> list[Place]:
    """List the fields that say which steps these are, of a group whose first is this batch of the epoch."""
    return [(state.epoch, batch, state.opened + first + i, first + i) for i, batch in enumerate(group)]


def _stepped(
    loop: Loop, state: LoopState, moving: Moving, group: tuple[Batch, ...], world: World, at: Callable[[str], None]
) -> Telling:
    """Tell of the steps that are about to be taken, and take them."""
    places = _places(state, moving.sums.batches, group)
    if "before_step" in loop.listened:
        at("before_step")
        for place in places:
            moving, event = fire(loop, moving, world, "before_step", *place)
            if "before_step" in loop.plan.wanted:
                yield Moment(state, moving, event)
    at("step")
    if not loop.takes_halves:
        return _advanced(loop, moving, group)
    return (yield from _halves(loop, state, moving, places[0], world, at))


def _halves(
    loop: Loop, state: LoopState, moving: Moving, place: Place, world: World, at: Callable[[str], None]
) -> Telling:
    """Take a step in its two halves, with the gradients that hooks make of them between."""
    params = moving.train.params
    grads, rest, opt_state, logs = loop.step.gradients(params, moving.train.opt_state, place[1])
    moving = moving._replace(train=loop.carry(params, opt_state))
    at("after_backward")
    moving, event = fire(loop, moving, world, "after_backward", *place, logs["loss"], grads)
    if "after_backward" in loop.plan.wanted:
        yield Moment(state, moving, event)
    at("step")
    grads = event.grads if isinstance(event, AfterBackward) else grads
    train = loop.carry(*loop.step.update(moving.train.params, moving.train.opt_state, grads, rest))
    return _counted(moving, train, (logs,), (place[1],)), (logs,)


def _told_after(
    loop: Loop,
    state: LoopState,
    moving: Moving,
    group: tuple[Batch, ...],
    logs: tuple[State, ...],
    world: World,
    at: Callable[[str], None],
) -> Generator[Moment, None, Moving]:
    """Tell of the steps that were taken."""
    at("after_step")
    places = _places(state, moving.sums.batches - len(group), group)
    for place, one in zip(places, logs, strict=True):
        moving, event = fire(loop, moving, world, "after_step", *place, one["loss"], one)
        yield Moment(state, moving, event if "after_step" in loop.plan.wanted else None)
    at("step")
    return moving
