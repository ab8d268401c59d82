"""The one driver of a run: it runs the fold, keeps its last state, and yields the requested events."""

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
from ._state import Loop, LoopState, Moment, Ports
from ._summary import report_of

__all__ = ["drive"]


def drive(loop: Loop, state: LoopState, ports: Ports) -> Generator[Event, None, LoopState]:
    """Run from a state to the end. Yield the requested events, and return the last state.

    `after_fit` is the last event. Its hooks also run when an error, an interrupt or the closing of the stream ends the
    run. The exception is raised after them.
    """
    with device_backend().tuned(loop.step.parameter_bytes):
        moments, last = run(loop, state, ports), Moment(state, state.moving)
        del state  # otherwise this frame keeps the first parameters alive
        try:
            while True:
                try:
                    last = next(moments)
                    if ports.watch is not None:
                        ports.watch(last)
                except StopIteration as done:
                    state = done.value
                    break
                if last.event is not None:
                    yield last.event
                    last = last._replace(event=None)
        except BaseException as error:
            with suppress(BaseException):  # the same error, with a note of its place
                moments.throw(error)
            ports.link.leave(error)
            _end_by(loop, last.state, ports, error)
            raise
        return (yield from _after_fit(loop, state, ports))


def _end_by(loop: Loop, state: LoopState, ports: Ports, error: BaseException) -> None:
    """End a run after an error: save the state if needed, and dispatch `after_fit`. The caller raises the error.

    Raise SystemExit where a signal has ended the reader of the output too.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        for text in getattr(error.__cause__, "__notes__", ()):  # a generator replaces StopIteration by RuntimeError
            error.add_note(text)
    note_failed_save(ports, error)
    signal, output_closed = ports.asked(), _is_closed_output(error)
    if signal is not None or output_closed:
        save_despite(loop, state, ports, error)
    closed = isinstance(error, GeneratorExit)
    reason = "the stream was closed" if closed else named_error(error)
    with noted_on(error, "after_fit failed, too"):
        for _ in _after_fit(loop, state.with_requests(stop=Stop(reason)), ports, None if closed else error):
            pass
    if output_closed and signal is not None:
        raise SystemExit(128 + Signals[signal]) from error


def _is_closed_output(error: BaseException) -> bool:
    """Tell whether the cause of an error is an output without a reader: a closed pipe, or a closed file."""
    return isinstance(error, BrokenPipeError) or (isinstance(error, ValueError) and "closed file" in str(error))


def _after_fit(
    loop: Loop, state: LoopState, ports: Ports, error: BaseException | None = None
) -> Generator[Event, None, LoopState]:
    """Write the run bundle if one is requested, and dispatch `after_fit`. Return the state after its hooks.

    The hooks run whether the bundle could be written or not. `error` is the exception that has ended the run.
    """
    report = report_of(loop, state, ports)
    try:
        if ports.writer is not None:
            with ports.undisturbed():
                ports.writer.bundle(report)
    except BaseException as failure:
        error = error or failure
        raise
    finally:
        state = yield from _dispatch_end(loop, state, ports, report, error)
    return state


def _dispatch_end(
    loop: Loop, state: LoopState, ports: Ports, report: Report, error: BaseException | None
) -> Generator[Event, None, LoopState]:
    moments = dispatch(loop, state, ports.at_end(), "after_fit", report=report, error=error)
    while True:
        try:
            moment = next(moments)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # the value of StopIteration is not typed
        if moment.event is not None:
            yield moment.event
