"""A run as a fold: a generator that is handed a state, yields the states it passes through, and returns the last."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ..core._errors import located
from ._checkpointing import save_after_epoch, save_final, save_partial_epoch
from ._monitor import judged
from ._state import Loop, LoopState, Moment, Moments, World
from ._summary import row_of
from ._telling import heard, told
from ._totals import Means, next_epoch
from ._training import trained
from ._validation import validated, validated_now

__all__ = ["run"]


def run(loop: Loop, state: LoopState, world: World) -> Moments:
    """Train from a state to the end of the plan, or to the first stop; return the state at the end.

    Every part of a run is a function `(loop, state, …) -> state` or a generator like this one. No record is changed,
    and effects go through the ports of `world`. Only the newest state has arrays: an earlier one gives them up as a
    step is taken from it, so that a run never holds two sets of parameters. An event keeps those of its moment.
    """
    stopped, asked = state.stop is not None, state.moving.requests.validate
    state = yield from told(loop, state, world, "before_fit", **_about(loop, state))
    if asked and state.stop is None:  # an interrupt has cut a validation that a hook had asked for
        state = yield from validated_now(loop, state, world, state.epoch - (not state.cursor.index))
    if stopped and state.cursor.index:
        state = yield from _epoch(loop, state, world)
    while state.stop is None and state.epoch < loop.plan.epochs:
        if not state.cursor.index:
            with located(epoch=state.epoch, stage="before_epoch"):
                state = yield from told(loop, state, world, "before_epoch", epoch=state.epoch)
            state = heard(state, world)
        if state.stop is None:
            state = yield from _epoch(loop, state, world)
    return (yield from save_final(loop, heard(state, world), world.deaf()))


def _about(loop: Loop, state: LoopState) -> dict[str, Any]:
    plan, origin = loop.plan, loop.origin
    return {
        "epochs_target": plan.epochs,
        "start_epoch": origin.epoch,
        "resumed_from_epoch": origin.resumed_from_epoch,
        "batches": plan.train.size,
        "optimizer": loop.trainer.optimizer,
        "trainable": loop.step.computation.split(state.moving.train.params)[0],
    }


def _epoch(loop: Loop, state: LoopState, world: World) -> Moments:
    """Train on an epoch, or on the rest of one; validate, judge it, and close it if it is complete."""
    started, before = time.perf_counter(), state.moving.sums.examples
    state, train, whole = yield from trained(loop, state, world)
    yield Moment(state, state.moving)
    state = heard(state, world)
    if train is None:  # a signal came before the first batch
        return state
    seconds, validation = time.perf_counter() - started, Means()
    if loop.plan.validation is not None and not state.moving.requests.interrupted:
        state, validation = yield from validated(loop, state, world, state.epoch)
    requests = state.moving.requests
    complete = whole and not requests.diverged and (loop.plan.validation is None or bool(validation.figures))
    if not complete:
        state = yield from save_partial_epoch(loop, state, world)
    row = row_of(state, seconds, state.moving.sums.examples - before, train, validation)
    with located(epoch=row.epoch, stage="after_epoch"):
        standing, row = judged(loop.monitor, state.standing, row, whole=complete)
        state = heard(replace(state, standing=standing, rows=(*state.rows, row)), world)
        yield Moment(state, state.moving)
        state = yield from told(loop, state, world, "after_epoch", row=row)
        state = _closed(state) if complete else state
        yield Moment(state, state.moving)
        if state.moving.requests.validate and not state.moving.requests.interrupted:
            state = yield from validated_now(loop, state, world, row.epoch)
    return (yield from save_after_epoch(loop, state, world, row)) if complete else state


def _closed(state: LoopState) -> LoopState:
    """Return the state at the beginning of the next epoch."""
    moving = state.moving._replace(sums=next_epoch(state.moving.sums))
    return replace(state, moving=moving, epoch=state.epoch + 1, opened=state.steps, completed=state.completed + 1)
