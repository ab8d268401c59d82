"""The events by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core._errors import unknown
from ..core._frozen import FrozenDict
from ..core._types import Params, State
from ._event import (
    AfterBackward,
    AfterCheckpoint,
    AfterEpoch,
    AfterEvaluation,
    AfterFit,
    AfterLog,
    AfterStep,
    AfterValidation,
    AfterValidationBatch,
    BeforeEpoch,
    BeforeFit,
    BeforeStep,
    BeforeValidation,
    Event,
)
from ._run_state import run_state

__all__ = ["EVENTS", "STEP_EVENTS", "event", "event_name", "name_of_event"]

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
    """Make an event, for `emit` in a loop of the user's own.

    Args:
        name: The name of the event, for example `"after_step"`.
        params: The parameters and buffers.
        opt_state: The state beside the parameters, as `step.init` makes it.
        fields: The other fields of the event, for example `epoch=0`.

    Returns:
        The event.

    Raises:
        ValueError: There is no such event; the error names the nearest one.
        TypeError: A field is missing, or unknown.

    >>> event("before_epoch", {}, {}, epoch=2).epoch
    2
    """
    return EVENTS[event_name(name)](run_state(params, opt_state), **fields)


_NAMES = {kind: name for name, kind in EVENTS.items()}


def name_of_event(event: Event) -> str:
    """Return the name of an event, as hooks use it.

    >>> name_of_event(BeforeEpoch(run_state({}, {}), epoch=0))
    'before_epoch'
    """
    if type(event) not in _NAMES:
        raise TypeError(f"an event is a record that event(name, …) makes; got {event!r}")
    return _NAMES[type(event)]


def event_name(name: str) -> str:
    """Return the name of an event unchanged. Raise ValueError with candidates for an unknown name.

    >>> event_name("after_stp")
    Traceback (most recent call last):
    ValueError: unknown event 'after_stp': did you mean 'after_step'? known: before_fit, before_epoch, before_step, ...
    """
    if name not in EVENTS:
        raise ValueError(unknown("event", name, EVENTS))
    return name
