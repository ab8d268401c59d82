"""When a run saves checkpoints, and the events that it emits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from ..checkpointing._writer import Writer
from ..core._errors import located, named_error, noted_on, say_on
from ._dispatching import dispatch
from ._frozen import trained_only
from ._nonfinite import nonfinite_paths, read_all
from ._record import index, record
from ._report import best_checkpoint
from ._rows import Evaluation, Row
from ._state import Loop, LoopState, Moment, Moments, Ports

__all__ = [
    "note_failed_save",
    "save_after_epoch",
    "save_after_step",
    "save_despite",
    "save_final",
    "save_on_error",
    "save_partial_epoch",
    "without_files",
]

R = TypeVar("R", Row, Evaluation)

_CHECKPOINT = attrgetter("checkpoint")

_LOG = logging.getLogger("mlx_fp.loop")


def save_after_step(loop: Loop, state: LoopState, ports: Ports, taken: int) -> Moments:
    """Save a checkpoint after steps if one is due, requested, or needed for an interrupt. Emit a finished one first."""
    if (writer := ports.writer) is None:
        return state
    state = yield from _emit_written(loop, state, ports, wait=False)
    requests, policy = state.moving.requests, writer.policy
    best = policy.best and _improved(state)
    if requests.save or requests.interrupted or best or policy.due_at(state.steps, taken):
        state = yield from _save(loop, state, ports)
    return state


def save_partial_epoch(loop: Loop, state: LoopState, ports: Ports) -> Moments:
    """Save at a stop within an epoch, so that resuming finishes the epoch, or knows that the run is over."""
    if (writer := ports.writer) is None or writer.holds(state.held):
        return state
    return (yield from _save(loop, state, ports))


def save_after_epoch(loop: Loop, state: LoopState, ports: Ports, row: Row) -> Moments:
    """Save a checkpoint after an epoch if one is due, requested, or needed for an interrupt."""
    if (writer := ports.writer) is None:
        return state
    requests = state.moving.requests
    if requests.save or requests.interrupted or writer.policy.due(row.epoch, _improved(state)):
        state = yield from _save(loop, state, ports)
    return state


def save_final(loop: Loop, state: LoopState, ports: Ports) -> Moments:
    """Save the end of a run if no checkpoint records it, and wait for the writer."""
    if (writer := ports.writer) is None:
        return state
    recorded = state.cursor.index or not state.steps or writer.holds(state.held)
    if not recorded and not nonfinite_paths(loop, state):
        state = read_all(loop, state)
        if not _replaces_best(loop, state, writer):
            state = yield from _save(loop, state, ports)
    return (yield from _emit_written(loop, state, ports, wait=True))


@contextmanager
def save_on_error(loop: Loop, state: Callable[[], LoopState], ports: Ports, stage: Callable[[], str]) -> Iterator[None]:
    """Within, an error in data or validation saves a checkpoint, and a note of the error names its path.

    A failure to write it is logged.
    """
    try:
        yield
    except Exception as error:
        if stage() in ("data", "validation"):
            with noted_on(error, "the run could not be saved"):
                save_despite(loop, state(), ports, error)
        raise


def save_despite(loop: Loop, state: LoopState, ports: Ports, error: BaseException) -> None:
    """Save a state that an error or an interrupt would lose. A note of the error names the path.

    Nothing is written after a loss that is not finite, or where this step is saved already.
    """
    writer = ports.writer
    note_failed_save(ports, error)
    if writer is None or writer.step == state.steps or not ports.link.saves_alone:
        return
    try:
        for _ in chain(_save(loop, state, ports), _emit_written(loop, state, ports, wait=True)):
            pass
    except FloatingPointError:  # a loss or a parameter is not finite: the run ends anyway
        return
    except Exception as fault:
        _LOG.warning("the steps since the last checkpoint could not be saved: %s", fault)
        return
    if writer.step == state.steps:
        path = writer.written[-1]
        error.add_note(f"the run so far, {state.steps} steps, is in {path}: resume='latest' continues from there")


def note_failed_save(ports: Ports, error: BaseException) -> None:
    """Add a note to an error if the checkpoint that was being written has failed."""
    fault = None if ports.writer is None else ports.writer.failure()
    if fault is not None:
        say_on(error, f"a checkpoint could not be written, too: {named_error(fault)}")


def _save(loop: Loop, state: LoopState, ports: Ports) -> Moments:
    """Save a checkpoint of a state. All losses are read first."""
    writer = ports.writer
    assert writer is not None
    state = read_all(loop, state.with_requests(save=False))
    if paths := nonfinite_paths(loop, state):
        message = f"{', '.join(paths)} not finite after step {state.steps}: no checkpoint is made of that"
        if loop.plan.nonfinite == "raise":
            raise FloatingPointError(message)
        _LOG.warning("%s", message)
        return state
    with ports.undisturbed():  # a second signal must not end the writing
        state = yield from _emit_written(loop, state, ports, wait=True)  # the writer writes one file at a time
        metadata = index(loop, state)
        with located(epoch=max(metadata["epoch"], 0), step=state.steps, stage="checkpoint"):
            path = writer.policy.of(metadata)
        state = _with_checkpoint(state, str(path))
        yield Moment(state, state.moving)
        train, recorded, select = state.moving.train, record(loop, state, encoder=ports.encoder), None
        if writer.policy.trainable_only:
            select, recorded = trained_only(loop, train.params, recorded)
        writer.start(path, train.params, ports.link.whole(train.opt_state), recorded, state.held, select)
        return (yield from _emit_written(loop, state, ports, wait=not writer.policy.background))


def _replaces_best(loop: Loop, state: LoopState, writer: Writer) -> bool:
    """Tell whether a checkpoint of a state would overwrite the best one, which is of an earlier step."""
    best_step = state.best.best_step
    best = best_checkpoint(state.evaluations, best_step)
    return best is not None and state.steps != best_step and best == str(writer.policy.of(index(loop, state)))


def _improved(state: LoopState) -> bool:
    """Tell whether an evaluation of this step is the best so far."""
    return state.evaluation is not None and state.evaluation.improved


def _with_checkpoint(state: LoopState, path: str) -> LoopState:
    """Return the state with the path in the rows of this step, and in no earlier row whose file was overwritten."""
    state = without_files(state, {path})
    rows = _with_last_path(state.rows, path) if not state.cursor.index else state.rows
    judged = state.evaluation is not None
    return replace(
        state, rows=rows, evaluations=_with_last_path(state.evaluations, path) if judged else state.evaluations
    )


def _with_last_path(rows: tuple[R, ...], path: str) -> tuple[R, ...]:
    last: tuple[R, ...] = tuple(replace(row, checkpoint=path) for row in rows[-1:])
    return rows[:-1] + last


def without_files(state: LoopState, gone: Set[str]) -> LoopState:
    """Return the state with no row that names one of these files."""
    if not gone:
        return state

    def without(rows: tuple[R, ...]) -> tuple[R, ...]:
        if gone.isdisjoint(map(_CHECKPOINT, rows)):  # the usual case: no copy of many rows
            return rows
        return tuple(replace(row, checkpoint=None) if row.checkpoint in gone else row for row in rows)

    return replace(state, rows=without(state.rows), evaluations=without(state.evaluations))


def _emit_written(loop: Loop, state: LoopState, ports: Ports, wait: bool) -> Moments:
    """Dispatch `after_checkpoint` for the checkpoint that is being written, if it is on disk. Raise its failure."""
    assert ports.writer is not None
    finished = ports.writer.poll(wait=wait)
    if finished is None:
        return state
    path, metadata, deleted = finished
    state = without_files(state, set(deleted) - {str(path)})
    fields = {name: metadata[name] for name in ("epoch", "step", "monitor_value", "improved")}
    with located(epoch=fields["epoch"], step=fields["step"], stage="after_checkpoint"):
        return (yield from dispatch(loop, state, ports, "after_checkpoint", path=str(path), deleted=deleted, **fields))
