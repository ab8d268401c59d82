"""The one driver of a run: it follows the fold, keeps its last state, and hands on the events that are wanted."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from signal import Signals

from ..core._errors import named_error, noted_on
from ..core.backend import device_backend
from ._checkpointing import note_failed_save, save_despite
from ._directive import Stop
from ._dispatching import dispatch
from ._event import Event
from ._report import Report
from ._run import run
from ._state import Loop, LoopState, Moment, World
from ._summary import report_of

__all__ = ["drive"]


def drive(loop: Loop, state: LoopState, world: World) -> Generator[Event, None, LoopState]:
    """Follow a run from a state; yield the events that are wanted, and return the state at the end.

    `after_fit` comes last. When an error, an interrupt or the closing of the stream ends the run, its hooks still run,
    and then the exception goes on.
    """
    with device_backend().tuned(loop.step.parameter_bytes, loop.plan.streams):
        moments, last = run(loop, state, world), Moment(state, state.moving)
        del state  # a frame that holds a state keeps its parameters
        try:
            while True:
                try:
                    last = next(moments)
                except StopIteration as done:
                    state = done.value
                    break
                if last.event is not None:
                    yield last.event
                    last = last._replace(event=None)
        except BaseException as error:
            with suppress(BaseException):  # this error, with a note of where it came from
                moments.throw(error)
            _end_by(loop, last.state, world, error)
            raise
        return (yield from _after_fit(loop, state, world))


def _end_by(loop: Loop, state: LoopState, world: World, error: BaseException) -> None:
    """End a run by an error: save what it would lose, and tell of the end. The error is for the caller to raise.

    SystemExit where a signal has ended the reader of an output, too.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        for text in getattr(error.__cause__, "__notes__", ()):  # a generator raises one error for the other
            error.add_note(text)
    note_failed_save(world, error)
    signal, lost = world.asked(), _lost_stream(error)
    if signal is not None or lost:
        save_despite(loop, state, world, error)
    closed = isinstance(error, GeneratorExit)
    reason = "the stream was closed" if closed else named_error(error)
    with noted_on(error, "after_fit failed, too"):
        for _ in _after_fit(loop, state.with_requests(stop=Stop(reason)), world):
            pass
    if lost and signal is not None:
        raise SystemExit(128 + Signals[signal]) from error


def _lost_stream(error: BaseException) -> bool:
    """Tell whether an error says that nobody reads an output any more: a closed pipe, or a closed file."""
    return isinstance(error, BrokenPipeError) or (isinstance(error, ValueError) and "closed file" in str(error))


def _after_fit(loop: Loop, state: LoopState, world: World) -> Generator[Event, None, LoopState]:
    """Write the run bundle, if there is to be one, and tell of the end; return the state that hooks make of it.

    Hooks hear of the end whether the bundle could be written or not.
    """
    report = report_of(loop, state, world)
    try:
        if world.writer is not None:
            with world.undisturbed():
                world.writer.bundle(report)
    finally:
        state = yield from _dispatch_end(loop, state, world, report)
    return state


def _dispatch_end(loop: Loop, state: LoopState, world: World, report: Report) -> Generator[Event, None, LoopState]:
    moments = dispatch(loop, state, world.deaf(), "after_fit", report=report)
    while True:
        try:
            moment = next(moments)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        if moment.event is not None:
            yield moment.event
