"""Several runs in lockstep: each waits before a step until all wait, so that one compiled step can serve them all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence

from ..step._carried import Carried
from ._driving import drive
from ._event import Event
from ._plan import Plan
from ._report import Report
from ._signals import Signals
from ._starting import link_of, start_run
from ._state import Moment, Ports
from ._summary import report_of
from ._trainer_record import Trainer

__all__ = ["PARKED", "in_lockstep", "parked_run"]

PARKED = ("before_step",)
"""The event at which a run waits for the others. The plan of the run yields it."""

Park = Callable[[Carried, Hashable], None]
"""`park(train, place)` gets the state of a run before a step, and its place in the data."""


def parked_run(trainer: Trainer, planned: Plan, signals: Signals, park: Park) -> Generator[Event, None, Report]:
    """Run as `fit` does, and yield before each step. Return the report."""
    with start_run(trainer, planned) as (loop, state, writer):

        def watch(moment: Moment) -> None:
            if moment.event is not None:
                park(moment.moving.train, (moment.base.epoch, moment.moving.sums.batches))

        ports = Ports(writer, link_of(loop, state, signals.asked), undisturbed=signals.undisturbed, watch=watch)
        stream = drive(loop, state, ports)
        del state  # otherwise this frame keeps the first parameters alive
        state = yield from stream
        return report_of(loop, state, ports)


def in_lockstep(
    runs: Sequence[Generator[object, None, Report]], failed: Callable[[], bool]
) -> list[Report | Exception]:
    """Drive runs to their ends, one step of each in turn. Return the report of each, or the error that ended it.

    Args:
        runs: The runs.
        failed: Whether the step of all runs has failed. Then the error ends all of them, and is raised.

    >>> def counted(count):
    ...     yield from range(count)
    ...     return count
    >>> in_lockstep([counted(2), counted(0)], lambda: False)
    [2, 0]
    """
    results: dict[int, Report | Exception] = {}
    active = dict(enumerate(runs))
    try:
        while active:
            for index, run in list(active.items()):
                try:
                    next(run)
                except StopIteration as done:
                    results[index] = done.value
                    del active[index]
                except Exception as error:
                    if failed():
                        raise
                    results[index] = error
                    del active[index]
    finally:
        for run in active.values():
            run.close()
    return [results[index] for index in range(len(runs))]
