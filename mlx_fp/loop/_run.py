"""A run as a fold: a generator that takes a state, yields the states it passes through, and returns the last state."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from ..core._errors import located
from ._checkpointing import save_after_epoch, save_final, save_partial_epoch
from ._dispatching import agree, dispatch, with_signal
from ._outer_numbers import OuterNumbers, compare_outer
from ._rows import Row
from ._state import Loop, LoopState, Moment, Moments, Ports
from ._summary import row_of, settings_of
from ._totals import Means, next_epoch
from ._training import train_epoch
from ._validation import judge_epoch, validate, validate_on_request

__all__ = ["run"]


def run(loop: Loop, state: LoopState, ports: Ports) -> Moments:
    """Train from a state to the end of the plan, or to the first stop; return the state at the end.

    Every part of a run is a function `(loop, state, …) -> state` or a generator like this one. Records are never
    changed, and effects go through the ports of `ports`. Only the newest state has arrays: a step releases the arrays
    of the state before it, so that a run never holds two sets of parameters. An event keeps the arrays of its moment.
    """
    stopped, validation_due = state.stop is not None, state.moving.requests.validate
    state = yield from dispatch(loop, state, ports, "before_fit", **_start_fields(loop, state))
    state = agree(state, ports)
    if validation_due and state.stop is None:  # an interrupt cut short the validation that a hook requested
        state = yield from validate_on_request(loop, state, ports, state.epoch - (not state.cursor.index))
    if state.cursor.index and (stopped or loop.plan.is_over(state.epoch, state.steps)):
        state = yield from _run_epoch(loop, state, ports)  # the run was cut short after the last step of this epoch
    outer = OuterNumbers()
    while state.stop is None and not loop.plan.is_over(state.epoch, state.steps):
        outer = compare_outer(loop, outer)
        if not state.cursor.index:
            with located(epoch=state.epoch, stage="before_epoch"):
                state = yield from dispatch(loop, state, ports, "before_epoch", epoch=state.epoch)
            state = with_signal(agree(state, ports), ports)
        if state.stop is None:
            state = yield from _run_epoch(loop, state, ports)
    state = yield from save_final(loop, with_signal(state, ports), ports.at_end())
    return agree(state, ports, last=True)


def _start_fields(loop: Loop, state: LoopState) -> dict[str, object]:
    """Return the fields of the event `before_fit`."""
    plan, origin, policy = loop.plan, loop.origin, loop.trainer.policy
    return {
        "epochs_target": plan.epochs,
        "steps_target": plan.steps,
        "start_epoch": origin.epoch,
        "resumed_from_epoch": origin.resumed_from_epoch,
        "batches": plan.train.size,
        "optimizer": loop.trainer.optimizer,
        "trainable": loop.step.trainable(state.moving.train.params),
        "start_step": state.steps,
        "run": state.lineage.run,
        "folder": None if policy is None else str(policy.folder),
        "setup": settings_of(loop),
        "world": plan.across,
    }


def _run_epoch(loop: Loop, state: LoopState, ports: Ports) -> Moments:
    """Train on an epoch, or on the rest of one. Validate and judge it, and close it if it is complete."""
    before = state.moving.sums.examples
    state, train, all_read, seconds = yield from train_epoch(loop, state, ports)
    yield Moment(state, state.moving)
    state = with_signal(state, ports)
    if train is None:  # a signal came before the first batch
        return state
    timed, stop = state.moving.sums.examples - before, state.stop
    pauses = stop is not None and not stop.final and not all_read
    if pauses:  # a resumed run continues from here as if it had not stopped: all below is for the report only
        state = yield from save_partial_epoch(loop, state, ports)
    all_read = all_read and not state.moving.requests.diverged
    closes = all_read or (stop is None and loop.plan.is_over(state.epoch, state.steps))
    state, evaluated = yield from _evaluate_epoch(loop, state, ports, train if closes else None)
    complete = all_read and evaluated
    if not complete and not pauses:
        state = yield from save_partial_epoch(loop, state, ports)
    row = _with_verdict(replace(row_of(state, state.epoch, seconds, timed, train, Means()), cut=not complete), state)
    with located(epoch=row.epoch, stage="after_epoch"):
        state = with_signal(replace(state, rows=(*state.rows, row)), ports)
        yield Moment(state, state.moving)
        state = agree((yield from dispatch(loop, state, ports, "after_epoch", row=row)), ports)
        state = _close_epoch(state) if complete else state
        yield Moment(state, state.moving)
        if state.moving.requests.validate and not state.moving.requests.interrupted:
            state = yield from validate_on_request(loop, state, ports, row.epoch)
    return (yield from save_after_epoch(loop, state, ports, row)) if complete else state


def _evaluate_epoch(
    loop: Loop, state: LoopState, ports: Ports, train: Means | None
) -> Generator[Moment, None, tuple[LoopState, bool]]:
    """Validate at the end of an epoch if it is due, or judge the epoch by its training figures, `train`.

    `train` is None for an epoch that is not complete. Return the state, and False where a signal prevented a due
    validation.
    """
    plan, requests = loop.plan, state.moving.requests
    stops = requests.stop is not None and not requests.interrupted and (requests.stop.final or train is None)
    ends = stops or plan.is_over(state.epoch + (train is not None), state.steps)
    due = state.evaluation is None if ends else plan.validate_every is None
    if due and plan.validation:
        if requests.interrupted:
            return state, False
        return (yield from validate(loop, state, ports, state.epoch, train=train))
    if train is not None and not loop.judges_validation:
        state = yield from judge_epoch(loop, state, ports, train)
    return state, True


def _with_verdict(row: Row, state: LoopState) -> Row:
    """Return the row of an epoch with the figures and the verdict of its last evaluation, if it has one."""
    last = state.evaluations[-1] if state.evaluations else None
    if last is None or last.epoch != row.epoch:
        return row
    return replace(
        row,
        val_loss=last.val_loss,
        val_metrics=last.val_metrics,
        validation_batches=last.batches,
        monitor_value=last.monitor_value,
        improved=last.improved,
        stale=last.stale,
    )


def _close_epoch(state: LoopState) -> LoopState:
    """Return the state at the start of the next epoch."""
    moving = state.moving._replace(sums=next_epoch(state.moving.sums))
    return replace(
        state, moving=moving, epoch=state.epoch + 1, epoch_start_step=state.steps, completed=state.completed + 1
    )
