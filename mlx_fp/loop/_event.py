"""What happens in a run, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core._errors import unknown
from ..core._frozen import FrozenDict
from ..core._types import Array, Batch, Params, State, Tree
from ._copies import copy_arrays, copy_on_read
from ._run_state import RunState, run_state

if TYPE_CHECKING:
    from ..optim import Optimizer
    from ._report import Report
    from ._rows import Evaluation, Row, StepRow

__all__ = [
    "EVENTS",
    "STEP_EVENTS",
    "AfterBackward",
    "AfterCheckpoint",
    "AfterEpoch",
    "AfterEvaluation",
    "AfterFit",
    "AfterLog",
    "AfterStep",
    "AfterValidation",
    "AfterValidationBatch",
    "BeforeEpoch",
    "BeforeFit",
    "BeforeStep",
    "BeforeValidation",
    "Event",
    "event",
    "event_name",
    "name_of_event",
]


class _WithLoss:
    """An event with a lazy loss."""

    __slots__ = ()
    loss: Array

    @property
    def loss_value(self) -> float:
        """The loss as a float; reading it waits for the device."""
        return float(self.loss.item())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, with the state of that moment.

    What an event holds is its reader's own: `+=` on it changes nothing in the run.
    """

    state: RunState


@copy_on_read(copy_arrays, "trainable")
@dataclass(frozen=True)
class BeforeFit(Event):
    """A run is about to start."""

    epochs_target: int | None
    steps_target: int | None
    start_epoch: int
    resumed_from_epoch: int | None
    batches: int | None
    """How many batches an epoch has, None where that is not known ahead."""
    optimizer: Optimizer
    """The trainer's optimiser."""
    trainable: Params
    """The parameters that train, in a tree with holes for the others."""


@dataclass(frozen=True, slots=True)
class BeforeEpoch(Event):
    """An epoch is about to start."""

    epoch: int


@copy_on_read(copy_arrays, "batch")
@dataclass(frozen=True)
class BeforeStep(Event):
    """A batch is about to be trained on; `step` counts from 0 over the run, `index` from 0 over the epoch's batches.

    With `accumulate` a step has several batches: `batch` is their list, and `index` the number of the first.
    """

    epoch: int
    batch: Batch
    step: int
    index: int


@copy_on_read(copy_arrays, "loss", "grads")
@dataclass(frozen=True)
class AfterBackward(BeforeStep, _WithLoss):
    """Gradients are there, before any clipping; a hook may return `Replace(grads=…)`."""

    loss: Array
    grads: Tree


@copy_on_read(copy_arrays, "loss", "logs")
@dataclass(frozen=True)
class AfterStep(BeforeStep, _WithLoss):
    """A step was taken. `loss` is lazy; reading `loss_value` or `grad_norm` waits for the device."""

    loss: Array
    logs: State

    @property
    def grad_norm(self) -> float:
        """The gradient's norm before clipping; KeyError unless the optimiser measures it, as `clip_norm(inf)` does."""
        from ..optim import reading

        return float(reading("grad_norm")(self.state.opt_state).item())


@dataclass(frozen=True, slots=True)
class AfterLog(Event):
    """A step was logged, see `log_every`. The fields of its row read as the event's own: `e.loss`, `e.grad_norm`."""

    row: StepRow

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


@dataclass(frozen=True, slots=True)
class BeforeValidation(Event):
    """Validation is about to start, after `step` steps of the run."""

    epoch: int
    step: int


@copy_on_read(copy_arrays, "batch", "loss")
@dataclass(frozen=True)
class AfterValidationBatch(Event, _WithLoss):
    """A validation batch was evaluated; `index` counts from 0 over its validation set, called `name` or ""."""

    epoch: int
    batch: Batch
    loss: Array
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class AfterValidation(Event):
    """Validation has ended. The fields of its row read as the event's own: `e.val_loss`, `e.improved`."""

    row: Evaluation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


@dataclass(frozen=True, slots=True)
class AfterEvaluation(AfterValidation):
    """The monitor has judged: a validation, or without validation data the end of an epoch."""


@dataclass(frozen=True, slots=True)
class AfterEpoch(Event):
    """An epoch has ended. The fields of its row read as the event's own: `e.epoch`, `e.val_accuracy`."""

    row: Row

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


@dataclass(frozen=True, slots=True)
class AfterCheckpoint(Event):
    """A checkpoint is on disk; `deleted` names those that made room for it."""

    path: str
    epoch: int
    step: int
    monitor_value: float | None
    improved: bool
    deleted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AfterFit(Event):
    """The run has ended, as planned or not: `report.stop_reason`."""

    report: Report


EVENTS: Mapping[str, type[Event]] = FrozenDict(
    {
        "before_fit": BeforeFit,
        "before_epoch": BeforeEpoch,
        "before_step": BeforeStep,
        "after_backward": AfterBackward,
        "after_step": AfterStep,
        "after_log": AfterLog,
        "before_validation": BeforeValidation,
        "after_validation_batch": AfterValidationBatch,
        "after_validation": AfterValidation,
        "after_evaluation": AfterEvaluation,
        "after_epoch": AfterEpoch,
        "after_checkpoint": AfterCheckpoint,
        "after_fit": AfterFit,
    }
)
"""Every event by its name, in the order of a run."""

STEP_EVENTS = frozenset({"before_step", "after_backward", "after_step"})
"""The events of each step."""


def event(name: str, params: Params, opt_state: State, **fields: Any) -> Event:
    """Make an event by its name, for `emit` in a loop of one's own.

    ValueError with candidates for a name that is none, TypeError for missing or unknown fields.

    >>> event("before_epoch", {}, {}, epoch=2).epoch
    2
    """
    return EVENTS[event_name(name)](run_state(params, opt_state), **fields)


_NAMES = {kind: name for name, kind in EVENTS.items()}


def name_of_event(event: Event) -> str:
    """Return the name under which hooks listen to an event.

    >>> name_of_event(BeforeEpoch(run_state({}, {}), epoch=0))
    'before_epoch'
    """
    if type(event) not in _NAMES:
        raise TypeError(f"an event is a record that event(name, …) makes; got {event!r}")
    return _NAMES[type(event)]


def event_name(name: str) -> str:
    """Return the name if there is such an event; ValueError with candidates otherwise.

    >>> event_name("after_stp")
    Traceback (most recent call last):
    ValueError: unknown event 'after_stp': did you mean 'after_step'? known: before_fit, before_epoch, before_step, ...
    """
    if name not in EVENTS:
        raise ValueError(unknown("event", name, EVENTS))
    return name
