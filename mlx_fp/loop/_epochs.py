"""The run of a trainer as a stream of events: epochs, validation, checkpoints, in order."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import nullcontext
from typing import Any

from ..core._errors import located
from ..core.backend import device_backend
from ..data import Cursor
from ._checkpointing import resume, save_after_epoch, save_final, save_on_error, save_partial_epoch
from ._event import Event
from ._hook import Stop
from ._monitor import judged
from ._plan import Plan
from ._run import Run
from ._summary import report_of, row_of
from ._trainer import Trainer
from ._training import trained
from ._validation import validate, validate_now

__all__ = ["run_events", "started"]

Stream = Generator[Event, None, None]


def started(trainer: Trainer, plan: Plan) -> Run:
    """Return a run that has not taken a step, at its start or where the checkpoint to resume from left it."""
    run = Run(trainer, plan)
    resume(run)
    return run


def run_events(run: Run) -> Stream:
    """Run, and yield the events that are wanted.

    `after_fit` comes last. When an error, an interrupt or the closing of the stream ends the run, its hooks still
    run, and then the exception goes on.
    """
    with device_backend().tuned(run.step.parameter_bytes, run.plan.streams), run.saver or nullcontext():
        try:
            yield from _epochs(run)
            run.over = True
            yield from save_final(run)
        except BaseException as error:
            closed = isinstance(error, GeneratorExit)
            run.stop = Stop("the stream was closed" if closed else f"{type(error).__name__}: {error}")
            run.tell("after_fit", report=report_of(run))
            raise
        yield from run.emit("after_fit", report=report_of(run))


def _epochs(run: Run) -> Stream:
    plan, ended, validate = run.plan, run.stop is not None, run.validate
    yield from run.emit("before_fit", **_about(run))
    if validate and run.stop is None:  # an interrupt has cut what a hook had asked for
        yield from validate_now(run, run.start_epoch - (not run.cursor.index))
    if ended and run.cursor.index:
        yield from _epoch(run, run.start_epoch)
    for epoch in range(run.start_epoch, plan.epochs):
        if run.stop is None and not run.cursor.index:
            with located(epoch=epoch, stage="before_epoch"):
                yield from run.emit("before_epoch", epoch=epoch)
        if run.stop is not None:
            return
        yield from _epoch(run, epoch)


def _about(run: Run) -> dict[str, Any]:
    """Return the fields of `before_fit`; nobody may keep them, because they hold the parameters of the start."""
    return {
        "epochs_target": run.plan.epochs,
        "start_epoch": run.start_epoch,
        "resumed_from_epoch": run.resumed_from_epoch,
        "batches": run.plan.train.size,
        "optimizer": run.trainer.optimizer,
        "trainable": run.step.computation.split(run.params)[0],
    }


def _epoch(run: Run, epoch: int) -> Stream:
    try:
        yield from _through(run, epoch)
    except Exception as error:
        save_on_error(run, epoch, run.totals.batches, error)
        raise


def _through(run: Run, epoch: int) -> Stream:
    plan, started = run.plan, time.perf_counter()
    totals = run.totals = run.new_totals(run.losses, plan.reduce, watched=True)
    run.opened = run.steps - (run.resumed_totals or {"batches": 0})["batches"]
    whole = (yield from trained(run, epoch, totals)) and not run.lost
    if not totals.batches:
        return
    seconds, validation = time.perf_counter() - started, run.new_totals(None, plan.validation_reduce)
    if plan.validation is not None and not run.interrupted:
        yield from validate(run, epoch, plan.validation, validation)
    complete = whole and (plan.validation is None or bool(validation.means))  # an interrupt ends a validation, too
    if not complete:
        yield from save_partial_epoch(run, epoch, totals.batches)
    run.stage = "after_epoch"
    row = row_of(epoch, run.steps, seconds, totals, validation)
    with located(epoch=epoch, stage="after_epoch"):
        run.standing, row = judged(run.monitor, run.standing, row, whole=complete)
        run.rows.append(row)
        yield from run.emit("after_epoch", row=row)
        if complete:
            run.completed += 1
            run.cursor = Cursor(epoch + 1)
        if run.validate and not run.interrupted:
            yield from validate_now(run, epoch)
    if complete:
        yield from save_after_epoch(run, epoch, row.improved)
