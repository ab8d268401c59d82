"""`on`: the verb that adds a hook. Type checkers know the type of each event from its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict, Unpack, overload

from ._directive import HookResult
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
)
from ._hook import hook
from ._trainer import with_hooks
from ._verb import TrainerVerb, as_verb

__all__ = ["on"]


class Schedule(TypedDict, total=False):
    """The options of a hook. `fold` describes each."""

    priority: float
    every: int
    once: bool
    when: Callable[[Any], bool] | None
    name: str


@overload
def on(
    event: Literal["before_fit"], fn: Callable[[BeforeFit], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["before_epoch"], fn: Callable[[BeforeEpoch], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["before_step"], fn: Callable[[BeforeStep], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_backward"], fn: Callable[[AfterBackward], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_step"], fn: Callable[[AfterStep], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_log"], fn: Callable[[AfterLog], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["before_validation"], fn: Callable[[BeforeValidation], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_validation_batch"],
    fn: Callable[[AfterValidationBatch], HookResult],
    **schedule: Unpack[Schedule],
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_validation"], fn: Callable[[AfterValidation], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_evaluation"], fn: Callable[[AfterEvaluation], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_epoch"], fn: Callable[[AfterEpoch], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_checkpoint"], fn: Callable[[AfterCheckpoint], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


@overload
def on(
    event: Literal["after_fit"], fn: Callable[[AfterFit], HookResult], **schedule: Unpack[Schedule]
) -> TrainerVerb: ...


def on(event: str, fn: Callable[[Any], HookResult], **schedule: Any) -> TrainerVerb:
    """Call a function at each event of a kind.

    Args:
        event: The name of the event, for example `"after_epoch"`.
        fn: A function of the event. It may return a directive: `Stop`, `Replace`, `Save` or `Validate`.
        schedule: `priority`, `every`, `once`, `when` and `name`, as for `fold`.

    Returns:
        A function from a trainer to a trainer with this hook after the others.

    Raises:
        ValueError: There is no such event; the error names the nearest one.
        TypeError: `fn` is no function, or an option is unknown.

    >>> on("after_epoch", print, every=2)
    on('after_epoch', print, every=2)
    """
    return as_verb(on, with_hooks(hook(event, fn, **schedule)), event, fn, **schedule)
