"""The steps of one epoch of a run: batches in, parameters and logs out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from ..core._errors import located
from ..core._mlx import mx
from ..core._types import Batch, State
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
Stepped = Generator[Moment, None, "tuple[Moving, tuple[State, ...]]"]


def trained(loop: Loop, state: LoopState, world: World) -> Trained:
    """Train on the rest of an epoch: `(state, means, whether it was all of it)`; no means where there was no batch."""
    plan, ahead, stage, taken, opened = loop.plan, list[Batch](), "data", 0, state.moving.train
    state = _begun(loop, state)
    moving = state.moving

    def at(name: str) -> None:
        nonlocal stage
        stage = name

    where = {"split": "train", "epoch": state.epoch, "batch": lambda: moving.sums.batches - taken + len(ahead)}
    rescue = saved_on_error(loop, lambda: replace(state, moving=moving), world, lambda: stage)
    with rescue, located(**where, stage=lambda: stage), closing(_opened(loop, state)) as batches:
        for group in () if state.stop is not None else grouped(batches, plan.steps_per_call, ahead):
            places = _places(state, moving, group)
            moving, logs = yield from _stepped(loop, state, moving, places, world, at)
            taken = len(group)
            yield Moment(state, moving)
            for held in (opened, state.moving.train):  # callers hold these to the end of the epoch
                if held is not moving.train:
                    held.release()
            moving = yield from _finished(loop, state, moving, places, logs, world, at)
            taken = 0
            yield Moment(state, moving)
            if moving.requests.validate or world.asked() is not None or world.writer is not None:
                stage = "checkpoint"
                state = yield from _between(loop, replace(state, moving=moving), world, len(group))
                moving = state.moving
            if moving.requests.stop is not None:
                break
            stage = "data"
        whole = moving.requests.stop is None or moving.sums.batches == plan.train.size
        if plan.sync == "epoch":
            mx.eval(moving.train.arrays)
        if not moving.sums.batches and moving.requests.stop is not None:
            return replace(state, moving=moving), None, whole
        state = settled(loop, replace(state, moving=moving))
        metrics = values(loop.step.metrics, state.moving.train.opt_state["metrics"])
        return state, close(state.moving.sums, plan.train, metrics, plan.reduce), whole


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


def _places(state: LoopState, moving: Moving, group: tuple[Batch, ...]) -> list[Place]:
    first = moving.sums.batches
    return [(state.epoch, batch, state.opened + first + i, first + i) for i, batch in enumerate(group)]


def _stepped(
    loop: Loop, state: LoopState, moving: Moving, places: list[Place], world: World, at: Callable[[str], None]
) -> Stepped:
    """Tell of the steps that are about to be taken, and take them in one call: the state then, and the logs of each.

    Nothing is queued on the device yet: the old parameters would be kept until it is done.
    """
    if "before_step" in loop.listened:
        at("before_step")
        for place in places:
            moving, event = fire(loop, moving, world, "before_step", *place)
            if "before_step" in loop.plan.wanted:
                yield Moment(state, moving, event)
    at("step")
    batches, logs = [batch for _, batch, _, _ in places], tuple[State, ...]()
    if loop.takes_halves:
        moving, logs = yield from _halves(loop, state, moving, places[0], world, at)
    else:
        train, logs = loop.step.advance(moving.train, batches)
        moving = Moving(train, moving.sums, moving.hooks, moving.requests)
    _, sums, hooks, requests = moving
    for one, batch in zip(logs, batches, strict=True):
        sums = add(sums, one, examples(batch))
    return Moving(moving.train, sums, hooks, requests), logs


def _halves(
    loop: Loop, state: LoopState, moving: Moving, place: Place, world: World, at: Callable[[str], None]
) -> Stepped:
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
    return moving._replace(train=train), (logs,)


def _finished(
    loop: Loop,
    state: LoopState,
    moving: Moving,
    places: list[Place],
    logs: tuple[State, ...],
    world: World,
    at: Callable[[str], None],
) -> Generator[Moment, None, Moving]:
    """Queue the steps on the device, tell of them, and read the oldest logs where too many are queued."""
    if moving.sums.batches == len(places):
        check_names(logs[0], reserved_names(loop.step.metrics))
    if loop.sync is not None:
        loop.sync(moving.train.arrays, logs)
    if "after_step" in loop.listened:
        at("after_step")
        for place, one in zip(places, logs, strict=True):
            moving, event = fire(loop, moving, world, "after_step", *place, one["loss"], one)
            if "after_step" in loop.plan.wanted:
                yield Moment(state, moving, event)
        at("step")
    while moving.sums.queued > loop.in_flight:
        moving = read(loop, state, moving)
    return moving
