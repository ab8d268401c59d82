"""Training on one epoch of a run, and the checkpoints, logs and validations between its steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

from ..compile._evaluation import wait_for
from ..core._errors import located
from ..core._types import Array, Batch
from ..data._share import Share
from ..step._carried import Carried, Logged
from ..task._folds import start
from ..tree._paths import leaves
from ._checkpointing import save_after_step, save_on_error
from ._dispatching import agree, with_signal
from ._logging import Log, note_due, write_all, write_due
from ._nonfinite import check_parameters, read_all_but
from ._state import Loop, LoopState, Moment, Moving, Ports
from ._stepping import advance, dispatch_after_step, release_states, step_with_events
from ._totals import READ_AT_ONCE, Means, check_names, reserved_names, wait_for_oldest
from ._validation import means_so_far, validate_on_request

__all__ = ["group_batches", "train_epoch"]

Trained = Generator[Moment, None, tuple[LoopState, Means | None, bool, float]]


def train_epoch(loop: Loop, state: LoopState, ports: Ports) -> Trained:
    """Train on the rest of an epoch.

    Return the state, the means of the epoch (None without a batch), whether all of the epoch was read, and the seconds.
    """
    plan, ahead, stage, taken = loop.plan, list[Batch](), "data", 0
    before = state.moving.train
    state = _with_fresh_metrics(loop, state)
    moving = state.moving
    unreleased: tuple[Carried, ...] = (before, moving.train)  # callers refer to these until the end of the epoch
    log, flight, started = Log.start(moving.sums), deque[Array](), time.perf_counter()

    def set_stage(name: str) -> None:
        nonlocal stage
        stage = name

    where = {"split": "train", "epoch": state.epoch, "batch": lambda: moving.sums.batches - taken + len(ahead)}
    rescue = save_on_error(
        loop, lambda: write_all(loop, replace(state, moving=moving), ports, log), ports, lambda: stage
    )
    with (
        rescue,
        located(**where, stage=lambda: stage),
        closing(ports.link.open(plan.train, state.cursor, "train")) as batches,
    ):
        for group in () if state.stop is not None else _groups(loop, state, batches, ahead):
            if loop.silent:
                stage = "step"
                moving, logs = advance(loop, moving, group, ports)
            else:
                moving, logs = yield from step_with_events(loop, state, moving, group, ports, set_stage)
            taken = len(group)
            yield Moment(state, moving)
            unreleased = release_states(unreleased, moving)
            _queue_steps(loop, moving, logs)
            log = log if plan.log_every is None else note_due(loop, state, moving, logs, log)
            if "after_step" in loop.listened:
                moving = yield from dispatch_after_step(loop, state, moving, group, logs, ports, set_stage)
            moving = _agreed(_read_finished(loop, state, moving, logs, flight), ports)
            if log.due:
                moving, log = yield from write_due(loop, state, moving, ports, log, loop.in_flight)
            taken = 0
            if _has_work(loop, state, moving, ports, len(logs)):
                stage = "checkpoint"
                state, log, spent = yield from _between_steps(
                    loop, replace(state, moving=moving), ports, log, len(logs)
                )
                moving, unreleased, started = state.moving, (state.moving.train,), started + spent
            if moving.requests.stop is not None:
                break
            stage = "data"
        return (yield from _finish_epoch(loop, replace(state, moving=moving), ports, log, started))


def group_batches(batches: Iterable[Batch], count: int, ahead: list[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yield tuples of `count` batches of one shape, in order. Batches that do not fit are yielded one by one.

    `ahead` holds the batches that were read and not yet yielded.

    >>> [len(group) for group in group_batches([mx.zeros((2,))] * 5, 2, [])]
    [2, 2, 1]
    """
    if count == 1:
        yield from zip(batches, strict=True)
        return
    for batch in batches:
        ahead.append(batch)
        if len(ahead) == count:
            same_shapes = all(_shapes(each) == _shapes(batch) for each in ahead)
            yield from _take_groups(ahead, count if same_shapes else 1)
    yield from _take_groups(ahead, 1)


def _groups(loop: Loop, state: LoopState, batches: Iterable[Batch], ahead: list[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yield the batches of each call: of one step, of several steps, or of one update that accumulates."""
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
    """Yield the batches of each update. The last update may have fewer."""
    for batch in batches:
        ahead.append(batch)
        if len(ahead) == count:
            yield from _take_groups(ahead, count)
    yield from _take_groups(ahead, count)


def _take_groups(ahead: list[Batch], count: int) -> Iterator[tuple[Batch, ...]]:
    """Take all batches out of `ahead`, and yield them in groups."""
    while ahead:
        group = tuple(ahead[:count])
        del ahead[:count]
        yield group


def _shapes(batch: Batch) -> object:
    if isinstance(batch, Share):  # all processes must group their batches in the same way
        return batch.shapes
    return [(getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in leaves(batch)]


def _with_fresh_metrics(loop: Loop, state: LoopState) -> LoopState:
    """Return the state with empty metrics at the start of an epoch. Within an epoch it is unchanged."""
    if state.cursor.index:
        return state
    train = state.moving.train
    opt_state = {**train.opt_state, "metrics": start(loop.step.metrics)}
    return replace(state, moving=state.moving._replace(train=loop.carry(train.params, opt_state)))


def _agreed(moving: Moving, ports: Ports) -> Moving:
    """Return the state with the requests on which all processes have agreed."""
    requests = ports.link.agreed(moving.requests)
    ports.link.check(moving.train)
    return moving if requests is moving.requests else moving._replace(requests=requests)


def _is_complete(loop: Loop, state: LoopState) -> bool:
    """Tell whether all of an epoch was read: a stop or the end of the plan may have cut it short."""
    plan = loop.plan
    is_cut = state.stop is not None or plan.steps_left(state.steps) == 0
    return not is_cut or state.moving.sums.batches == plan.train.size


def _finish_epoch(loop: Loop, state: LoopState, ports: Ports, log: Log, started: float) -> Trained:
    """Read all queued logs, and log the steps that are due. Return the same as `train_epoch`."""
    state = agree(state, ports)
    all_read, seconds = _is_complete(loop, state), time.perf_counter() - started
    if not state.moving.sums.batches and state.stop is not None:
        return state, None, all_read, seconds
    if loop.plan.sync == "epoch":
        wait_for(state.moving.train.arrays)
    moving, _ = yield from write_due(loop, state, state.moving, ports, log, 0)
    state, means = means_so_far(loop, replace(state, moving=moving))
    return check_parameters(loop, state), means, all_read, seconds


def _between_steps(
    loop: Loop, state: LoopState, ports: Ports, log: Log, taken: int
) -> Generator[Moment, None, tuple[LoopState, Log, float]]:
    """Between two steps, carry out the requests of signals, hooks and the plan, and write a due checkpoint.

    Due steps are logged first, so that a checkpoint holds the memories that hooks have of them. Return the state, the
    log, and the seconds that this took.
    """
    before, plan, policy = time.perf_counter(), loop.plan, None if ports.writer is None else ports.writer.policy
    state = with_signal(state, ports)
    if plan.validate_every is not None and _passes_multiple(state.steps, taken, plan.validate_every):
        state = state.with_requests(validate=True)
    requests = state.moving.requests
    saves = policy is not None and (requests.save or requests.interrupted or policy.due_at(state.steps, taken))
    if log.due and (requests.validate or saves):
        moving, log = yield from write_due(loop, state, state.moving, ports, log, 0)
        state = replace(state, moving=moving)
    if state.moving.requests.validate:
        state = yield from validate_on_request(loop, state, ports, state.epoch)
    state = yield from save_after_step(loop, state, ports, taken)
    spent = time.perf_counter() - before
    return state, log.later(spent), spent


def _has_work(loop: Loop, state: LoopState, moving: Moving, ports: Ports, taken: int) -> bool:
    """Tell whether something may be due between two steps. Most steps have nothing, and asking must be cheap."""
    requests, writer, plan = moving.requests, ports.writer, loop.plan
    if requests.validate or plan.validate_every is not None or ports.asked() is not None:
        return True
    if writer is None:
        return False
    step = state.epoch_start_step + moving.sums.updates
    return writer.has_unread or requests.save or requests.interrupted or writer.policy.due_at(step, taken)


def _passes_multiple(step: int, taken: int, every: int) -> bool:
    """Tell whether the last `taken` steps include a multiple of `every`.

    >>> _passes_multiple(8, 1, 4), _passes_multiple(9, 1, 4), _passes_multiple(9, 2, 4)
    (True, False, True)
    """
    return step // every > (step - taken) // every


def _queue_steps(loop: Loop, moving: Moving, logs: tuple[Logged, ...]) -> None:
    """Queue the steps on the device. Raise ValueError where the loss reports a figure under a reserved name."""
    if moving.sums.updates == len(logs):
        check_names(logs[0][1], reserved_names(loop.step.metrics))
    if loop.sync is not None:
        loop.sync(moving.train.arrays, logs)


def _read_finished(
    loop: Loop, state: LoopState, moving: Moving, logs: tuple[Logged, ...], flight: deque[Array]
) -> Moving:
    """Wait for the steps that are too old to be in flight. Read them if many are queued, or one has no finite loss."""
    in_flight = loop.in_flight
    if in_flight is None:
        return moving
    for step_logs, *_ in logs:
        flight.append(step_logs["loss"])
    if wait_for_oldest(flight, in_flight) and moving.sums.queued < READ_AT_ONCE:
        return moving
    return read_all_but(loop, state, moving, in_flight)
