"""The progress of a run as plain values: a fold over its moments and events that reads nothing from the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from ..core._types import Array, State
from ._event import AfterEpoch, AfterEvaluation, AfterLog, BeforeEpoch, BeforeValidation, Event
from ._state import Loop, LoopState, Moment
from ._totals import Sums

__all__ = ["Progress", "begin", "note_event", "note_moment", "without_time"]

_SMOOTHING = 0.3
"""The weight of the newest rate in the rate that is shown."""


class Clock(NamedTuple):
    """A moment of a run."""

    seconds: float
    step: int
    rows: int
    """Training rows of the epoch."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run. Steps and epochs count from 0."""

    epochs: int | None
    """Epochs of the run; None for a run of a number of steps."""
    steps: int | None
    """Steps of the run; None for a run of a number of epochs."""
    epoch_steps: int | None
    """Steps of an epoch, where the number is known."""
    accumulate: int
    """Batches of a step."""
    unit: str
    """`"tokens"` or `"rows"`."""
    validates_within: bool
    """Whether validations within an epoch have notes of their own."""
    epoch: int
    step: int
    """Finished steps of the run."""
    epoch_step: int
    """Finished steps of the epoch."""
    activity: str = "starting"
    """`"starting"` until the first step, `"compiling"` during it, `"validating"`, or "" between these."""
    loss: float | None = None
    validation: tuple[str, float] | None = None
    """The name and the value of the newest figure of validation."""
    learning_rate: float | None = None
    rate: float | None = None
    """Rows, or tokens, per second."""
    memory: int = 0
    """The peak of the memory that MLX has used, in bytes."""
    first: Clock | None = None
    """The moment after the first step of this process, later by the time of kernels that were compiled since."""
    newest: Clock | None = None
    """The moment of the newest rate; None after a pause."""
    seconds: float = 0.0
    """The time at which these values were read."""

    @property
    def seconds_left(self) -> float | None:
        """The remaining seconds at the mean speed since the first step; None where they are not known."""
        if self.steps is not None:
            left = self.steps - self.step
        elif self.epochs is not None and self.epoch_steps:
            left = self.epoch_steps * (self.epochs - self.epoch) - self.epoch_step
        else:
            return None
        if self.first is None or self.step <= self.first.step:
            return None
        return max(left, 0) * (self.seconds - self.first.seconds) / (self.step - self.first.step)


def begin(loop: Loop, state: LoopState) -> Progress:
    """Return the progress of a run at its state before the first step of this process."""
    plan = loop.plan
    size = plan.train.size
    unit = "tokens" if loop.trainer.task.unit == "tokens" else "rows"
    steps = None if size is None else -(-size // plan.accumulate)
    within, updates = plan.validate_every is not None, state.moving.sums.updates
    return Progress(plan.epochs, plan.steps, steps, plan.accumulate, unit, within, state.epoch, state.steps, updates)


def note_moment(progress: Progress, moment: Moment, *, seconds: float, memory: int, waited: int | None) -> Progress:
    """Return the progress at a moment of a run. A moment before the first step of an epoch changes nothing.

    Args:
        progress: The progress before.
        moment: The moment.
        seconds: The time.
        memory: The peak of the memory, in bytes.
        waited: The number of steps that may be in flight: the run has waited for all older ones. None: for none.
    """
    state, sums = moment.base, moment.moving.sums
    if not sums.updates:  # between two epochs: the last one stays, until the next one begins
        return progress
    step = state.epoch_start_step + sums.updates
    now, first, activity = Clock(seconds, step, sums.examples), progress.first, progress.activity
    if activity == "starting" and step > progress.step:
        activity = "compiling"
    elif activity == "compiling":
        activity, first = "", now
    logs = _newest_read(sums, waited)
    rate = progress.learning_rate if logs is None else _number(logs.get("learning_rate"), progress.learning_rate)
    return replace(
        progress,
        epoch=state.epoch,
        step=step,
        epoch_step=sums.updates,
        activity=activity,
        loss=_loss(sums, logs, progress.loss),
        learning_rate=rate,
        rate=_rows_rate(progress, sums, now),
        memory=memory,
        first=first,
        newest=now,
        seconds=seconds,
    )


def note_event(progress: Progress, event: Event) -> Progress:
    """Return the progress after an event. Other events change nothing."""
    match event:
        case BeforeEpoch(epoch=epoch):
            return replace(progress, epoch=epoch, epoch_step=0, newest=None)
        case BeforeValidation(step=step):
            done = progress.epoch_step + step - progress.step
            return replace(progress, activity="validating", step=step, epoch_step=done, newest=None)
        case AfterEvaluation():
            figures = list(event.row.figures().items())
            return replace(progress, activity="", validation=figures[0] if figures else progress.validation)
        case AfterLog():
            return replace(progress, learning_rate=event.row.learning_rate, loss=event.row.loss)
        case AfterEpoch():
            row = event.row
            done = -(-row.batches // progress.accumulate)
            progress = replace(progress, activity="", loss=row.loss, step=row.steps, newest=None)
            return replace(progress, epoch_step=done, epoch_steps=progress.epoch_steps if row.cut else done)
    return progress


def without_time(progress: Progress, seconds: float) -> Progress:
    """Return the progress such that the last seconds count as the time of no step. Kernels were compiled in them.

    >>> begun = Progress(1, None, 6, 1, "rows", False, 0, 3, 3, activity="", first=Clock(0.0, 1, 8), seconds=9.0)
    >>> begun.seconds_left, without_time(begun, 8.0).seconds_left
    (13.5, 1.5)
    """
    first = progress.first
    return replace(
        progress, first=None if first is None else first._replace(seconds=first.seconds + seconds), newest=None
    )


def _newest_read(sums: Sums, waited: int | None) -> State | None:
    """Return the logs of the newest step that is surely not in flight; None where it is read already, or in flight."""
    if waited is None:
        return None
    queue = sums.queue
    for _ in range(waited):
        if queue is None:
            return None
        queue = queue[0]
    return None if queue is None else queue[1][0]


def _loss(sums: Sums, logs: State | None, before: float | None) -> float | None:
    if logs is not None:
        return _number(logs["loss"], before)
    return sums.read.last if sums.updates > sums.queued else before


def _number(value: Array | None, default: float | None) -> float | None:
    return default if value is None else float(value.item())  # type: ignore[arg-type]  # MLX: item() is of any scalar


def _rows_rate(progress: Progress, sums: Sums, now: Clock) -> float | None:
    """Return rows, or tokens, per second. A mean in which newer times count more."""
    before, rate = progress.newest, progress.rate
    if progress.activity or before is None or now.rows <= before.rows or now.seconds <= before.seconds:
        return rate
    newest = (now.rows - before.rows) / (now.seconds - before.seconds)
    if progress.unit == "tokens":
        weight = sums.read.figures.get("loss", (0.0, 0.0))[1]
        if not weight:
            return rate
        newest *= weight * sums.updates / ((sums.updates - sums.queued) * sums.examples)
    return newest if rate is None else rate + _SMOOTHING * (newest - rate)
