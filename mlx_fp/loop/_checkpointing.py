"""When a run saves checkpoints, the events that it emits for them, and resuming."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING

from ..checkpointing._resume import resolved
from ..checkpointing._retention import is_newest, new_run
from ..data import Cursor
from ..optim._state import finite
from ._event import Event
from ._hook import Stop
from ._record import restore, snapshot

if TYPE_CHECKING:
    from ..checkpointing._writer import Saver
    from ._run import Run

__all__ = [
    "resume",
    "save_after_epoch",
    "save_after_step",
    "save_final",
    "save_on_error",
    "save_partial_epoch",
]

_LOG = logging.getLogger("mlx_fp.loop")

Stream = Generator[Event, None, None]


def save_after_step(run: Run, epoch: int, batches: int, taken: int) -> Stream:
    """Write what is due after steps, or is asked for, or must not be lost; tell of what was written meanwhile."""
    if run.saver is None:
        return
    yield from _emit_written(run, wait=False)
    if run.save or run.interrupted or run.saver.policy.due_at(run.steps, taken):
        run.cursor = Cursor(epoch, batches)
        yield from _saved(run)


def save_partial_epoch(run: Run, epoch: int, batches: int) -> Stream:
    """Write where a run ends within an epoch, so that resumed it goes on with the rest of that, or knows its end."""
    if run.saver is not None and (run.cursor != Cursor(epoch, batches) or run.saver.ended != run.hooks.ended):
        run.cursor = Cursor(epoch, batches)
        yield from _saved(run)


def save_on_error(run: Run, epoch: int, batches: int, error: Exception) -> None:
    """Write what an error in data or validation would lose, and note in the error where it is.

    Nothing is written of a loss that is not finite. What goes wrong with the writing is logged.
    """
    wanted = run.stage in ("data", "validation") and not isinstance(error, FloatingPointError)
    if run.saver is None or not wanted or run.saver.step == run.steps:
        return
    if run.cursor.epoch == epoch:
        run.cursor = Cursor(epoch, batches)
    try:
        for _ in chain(_saved(run), _emit_written(run, wait=True)):
            pass
    except Exception as fault:
        _LOG.warning("what was done since the last checkpoint could not be saved: %s", fault)
        return
    if run.saver.step == run.steps:
        path = run.saver.written[-1]
        error.add_note(f"the run so far, {run.steps} steps, is in {path}: resume='latest' goes on from there")


def save_after_epoch(run: Run, epoch: int, improved: bool) -> Stream:
    """Write what is due after an epoch, or is asked for, or must not be lost, after all hooks."""
    if run.saver is None:
        return
    if run.save or run.interrupted or run.saver.policy.due(epoch, improved):
        yield from _saved(run)


def save_final(run: Run) -> Stream:
    """Write that a hook or a signal has ended the run between epochs, if no checkpoint has that; wait for the last."""
    if run.saver is None:
        return
    if run.rows and not run.cursor.index:
        unsaved = run.interrupted and run.rows[-1].checkpoint is None
        if unsaved or run.saver.ended != run.hooks.ended:
            yield from _saved(run)
    yield from _emit_written(run, wait=True)


def resume(run: Run) -> None:
    """Put a run where the checkpoint to resume from left it; without one it starts anew."""
    found, kind = resolved(run.plan.resume, run.trainer, run.monitor.name, run.saver)
    files = [] if run.saver is None else run.saver.files()
    if found is None:
        run.name = new_run(files)
        return
    run.cursor = restore(run, found)
    if not is_newest(found.path, files):
        run.branch, run.name = {**run.branch, run.name: run.steps}, new_run(files)
    if run.hooks.ended is not None:
        run.stop = Stop(run.hooks.ended)
        told = "%s is of a run that a hook has ended: %s; without that hook it goes on"
        _LOG.warning(told, found.path or "the checkpoint", run.hooks.ended)
    if run.saver is not None:
        run.saver.resumed_from, run.saver.ended, run.saver.step = found.path, run.hooks.ended, run.steps
    run.resume_from, run.resumed_from_epoch = kind if found.path is None else str(found.path), found.metadata["epoch"]
    run.start_epoch = run.cursor.epoch


def _saved(run: Run) -> Stream:
    """Write a checkpoint of the state at the run's cursor."""
    assert run.saver is not None
    run.save, run.stage, run.saver.ended = False, "checkpoint", run.hooks.ended
    if not finite(run.params).item():
        fault = f"the parameters are not finite after step {run.steps}: no checkpoint is made of them"
        if run.plan.nonfinite == "raise" and run.stop is None:
            raise FloatingPointError(fault)
        _LOG.warning("%s", fault)
        return
    run.saving = True  # a second signal must not cut it
    try:
        yield from _written(run, run.saver)
    finally:
        run.saving = False


def _written(run: Run, saver: Saver) -> Stream:
    told = snapshot(run, run.cursor)
    path = saver.policy.of(told)
    _name_rows(run, str(path))
    told["rows"] = [asdict(row) for row in run.rows]
    yield from _emit_written(run, wait=True)  # one is written at a time
    saver.start(path, run.params, run.opt_state, told)
    saver.step = run.steps
    yield from _emit_written(run, wait=not saver.policy.background or run.interrupted)


def _name_rows(run: Run, path: str) -> None:
    """Say in the row of an epoch where its checkpoint is, and no longer in that of another which had the same path."""
    run.rows[:] = [replace(row, checkpoint=None) if row.checkpoint == path else row for row in run.rows]
    if not run.cursor.index:
        run.rows[-1] = replace(run.rows[-1], checkpoint=path)


def _emit_written(run: Run, wait: bool) -> Stream:
    """Tell of the checkpoint that is being written, if it is on disk; its failure comes out here."""
    assert run.saver is not None
    done = run.saver.done(wait=wait)
    if done is None:
        return
    path, told, deleted = done
    fields = {name: told[name] for name in ("epoch", "step", "monitor_value", "improved")}
    yield from run.emit("after_checkpoint", path=str(path), deleted=deleted, **fields)
