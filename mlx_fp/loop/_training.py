"""The steps of one epoch of a run: batches in, parameters and logs out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

from ..core._errors import located
from ..core._mlx import mx
from ..core._types import Array, Batch
from ..step._carried import Carried, Logged
from ..task._folds import start
from ..tree._paths import leaves
from ._checkpointing import save_after_step, save_on_error
from ._dispatching import with_signal
from ._logging import Log, note_due, write_all, write_due
from ._reading import check_parameters, read_all_but
from ._state import Loop, LoopState, Moment, Moving, World
from ._stepping import advance, dispatch_after_step, release_states, step_with_events
from ._totals import READ_AT_ONCE, Means, check_names, reserved_names, wait_for_oldest
from ._validation import means_so_far, validate_on_request

__all__ = ["group_batches", "train_epoch"]

Trained = Generator[Moment, None, tuple[LoopState, Means | None, bool, float]]


def train_epoch(loop: Loop, state: LoopState, world: World) -> Trained:
    """Train on the rest of an epoch: `(state, means, whether it was all of it, seconds)`; no means without a batch."""
    plan, ahead, stage, taken = loop.plan, list[Batch](), "data", 0
    opened = state.moving.train
    state = _with_fresh_metrics(loop, state)
    moving = state.moving
    held: tuple[Carried, ...] = (opened, moving.train)  # callers hold these to the end of the epoch
    log, flight, started = Log.start(moving.sums), deque[Array](), time.perf_counter()

    def at(name: str) -> None:
        nonlocal stage
        stage = name

    where = {"split": "train", "epoch": state.epoch, "batch": lambda: moving.sums.batches - taken + len(ahead)}
    rescue = save_on_error(
        loop, lambda: write_all(loop, replace(state, moving=moving), world, log), world, lambda: stage
    )
    with rescue, located(**where, stage=lambda: stage), closing(_open_data(loop, state)) as batches:
        for group in () if state.stop is not None else _groups(loop, state, batches, ahead):
            if loop.silent:
                stage = "step"
                moving, logs = advance(loop, moving, group)
            else:
                moving, logs = yield from step_with_events(loop, state, moving, group, world, at)
            taken = len(group)
            yield Moment(state, moving)
            held = release_states(held, moving)
            _queue_steps(loop, moving, logs)
            log = log if plan.log_every is None else note_due(loop, state, moving, logs, log)
            if "after_step" in loop.listened:
                moving = yield from dispatch_after_step(loop, state, moving, group, logs, world, at)
            moving = _read_finished(loop, state, moving, logs, flight)
            if log.due:
                moving, log = yield from write_due(loop, state, moving, world, log, loop.in_flight)
            taken = 0
            if moving.requests.validate or world.writer is not None or plan.validate_every or world.asked() is not None:
                stage = "checkpoint"
                state, log, spent = yield from _between_steps(
                    loop, replace(state, moving=moving), world, log, len(logs)
                )
                moving, held, started = state.moving, (state.moving.train,), started + spent
            if moving.requests.stop is not None:
                break
            stage = "data"
        return (yield from _finish_epoch(loop, replace(state, moving=moving), world, log, started))


def group_batches(batches: Iterable[Batch], count: int, ahead: list[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yield tuples of `count` batches of one shape each, and the batches that do not fit by themselves, in order.

    `ahead` holds those that were read and not yet yielded.

    >>> [len(group) for group in group_batches([mx.zeros((2,))] * 5, 2, [])]
    [2, 2, 1]
    """
    if count == 1:
        yield from zip(batches, strict=True)
        return
    for batch in batches:
        ahead.append(batch)
        if len(ahead) == count:
            alike = all(_shapes(one) == _shapes(batch) for one in ahead)
            yield from _take_groups(ahead, count if alike else 1)
    yield from _take_groups(ahead, 1)


def _groups(loop: Loop, state: LoopState, batches: Iterable[Batch], ahead: list[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yield the batches of each call: of one step, of several, or of one update that accumulates."""
    plan = loop.plan
    left = plan.steps_left(state.steps)
    if left is not None:
        batches = islice(batches, left * plan.accumulate)
    return (
        group_batches(batches, plan.steps_per_call, ahead)
        if plan.accumulate == 1
        else _accumulation_groups(batches, plan.accumulate, ahead)
    )


def _accumulation_groups(batches: Iterable[Batch], count: int, ahead: list[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yield the batches of each update; the last may have fewer."""
    for batch in batches:
        ahead.append(batch)
        if len(ahead) == count:
            yield from _take_groups(ahead, count)
    yield from _take_groups(ahead, count)


def _take_groups(ahead: list[Batch], count: int) -> Iterator[tuple[Batch, ...]]:
    while ahead:
        group = tuple(ahead[:count])
        del ahead[:count]
        yield group


def _shapes(batch: Batch) -> list[Any]:
    return [(getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in leaves(batch)]


def _open_data(loop: Loop, state: LoopState) -> Any:
    return loop.plan.train.open(state.cursor, kind="train")


def _with_fresh_metrics(loop: Loop, state: LoopState) -> LoopState:
    """Return the state with metrics that have seen no batch of the epoch, unless it was begun before."""
    if state.cursor.index:
        return state
    train = state.moving.train
    opt_state = {**train.opt_state, "metrics": start(loop.step.metrics)}
    return replace(state, moving=state.moving._replace(train=loop.carry(train.params, opt_state)))


def _is_whole(loop: Loop, state: LoopState) -> bool:
    """Tell whether an epoch has come to its end: a stop or the end of the plan may have cut it."""
    plan = loop.plan
    cut = state.stop is not None or plan.steps_left(state.steps) == 0
    return not cut or state.moving.sums.batches == plan.train.size


def _finish_epoch(loop: Loop, state: LoopState, world: World, log: Log, started: float) -> Trained:
    """Read all that is queued, and log the steps that are due; return the same as `trained`."""
    whole, seconds = _is_whole(loop, state), time.perf_counter() - started
    if not state.moving.sums.batches and state.stop is not None:
        return state, None, whole, seconds
    if loop.plan.sync == "epoch":
        mx.eval(state.moving.train.arrays)
    moving, _ = yield from write_due(loop, state, state.moving, world, log, 0)
    state, means = means_so_far(loop, replace(state, moving=moving))
    return check_parameters(loop, state), means, whole, seconds


def _between_steps(
    loop: Loop, state: LoopState, world: World, log: Log, taken: int
) -> Generator[Moment, None, tuple[LoopState, Log, float]]:
    """Between two steps, do as a signal, a hook or the plan asks, and write the checkpoint that is due.

    Steps that are due are logged before, so that a checkpoint holds the memories that hooks have of them. Return the
    state, the log, and the seconds that this took.
    """
    before, plan, policy = time.perf_counter(), loop.plan, None if world.writer is None else world.writer.policy
    state = with_signal(state, world)
    if plan.validate_every is not None and _passes_multiple(state.steps, taken, plan.validate_every):
        state = state.with_requests(validate=True)
    requests = state.moving.requests
    saves = policy is not None and (requests.save or requests.interrupted or policy.due_at(state.steps, taken))
    if log.due and (requests.validate or saves):
        moving, log = yield from write_due(loop, state, state.moving, world, log, 0)
        state = replace(state, moving=moving)
    if state.moving.requests.validate:
        state = yield from validate_on_request(loop, state, world, state.epoch)
    state = yield from save_after_step(loop, state, world, taken)
    spent = time.perf_counter() - before
    return state, log.later(spent), spent


def _passes_multiple(step: int, taken: int, every: int) -> bool:
    """Tell whether a multiple of `every` is among the last steps that were taken.

    >>> _passes_multiple(8, 1, 4), _passes_multiple(9, 1, 4), _passes_multiple(9, 2, 4)
    (True, False, True)
    """
    return step // every > (step - taken) // every


def _queue_steps(loop: Loop, moving: Moving, logs: tuple[Logged, ...]) -> None:
    """Queue the steps on the device; ValueError where the first of an epoch reports under a name that is taken."""
    if moving.sums.updates == len(logs):
        check_names(logs[0][1], reserved_names(loop.step.metrics))
    if loop.sync is not None:
        loop.sync(moving.train.arrays, logs)


def _read_finished(
    loop: Loop, state: LoopState, moving: Moving, logs: tuple[Logged, ...], flight: deque[Array]
) -> Moving:
    """Wait for the steps that are no longer in flight, and read them where it is time, or one has no finite loss."""
    in_flight = loop.in_flight
    if in_flight is None:
        return moving
    for each, *_ in logs:
        flight.append(each["loss"])
    if wait_for_oldest(flight, in_flight) and moving.sums.queued < READ_AT_ONCE:
        return moving
    return read_all_but(loop, state, moving, in_flight)
