"""`on`: a trainer with one more hook, whose function knows the type of its event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict, Unpack, overload

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
from ._hook import Directive, hook
from ._trainer import Verb, with_hooks

__all__ = ["on"]


class Schedule(TypedDict, total=False):
    """When a hook runs; `fold` describes each."""

    priority: float
    every: int
    once: bool
    when: Callable[[Any], bool] | None
    name: str


@overload
def on(event: Literal["before_fit"], fn: Callable[[BeforeFit], Directive], **schedule: Unpack[Schedule]) -> Verb: ...


@overload
def on(
    event: Literal["before_epoch"], fn: Callable[[BeforeEpoch], Directive], **schedule: Unpack[Schedule]
) -> Verb: ...


@overload
def on(event: Literal["before_step"], fn: Callable[[BeforeStep], Directive], **schedule: Unpack[Schedule]) -> Verb: ...


@overload
def on(
    event: Literal["after_backward"], fn: Callable[[AfterBackward], Directive], **schedule: Unpack[Schedule]
) -> Verb: ...


@overload
def on(event: Literal["after_step"], fn: Callable[[AfterStep], Directive], **schedule: Unpack[Schedule]) -> Verb: ...


@overload
def on(event: Literal["after_log"], fn: Callable[[AfterLog], Directive], **schedule: Unpack[Schedule]) -> Verb: ...


@overload
def on(
    event: Literal["before_validation"], fn: Callable[[BeforeValidation], Directive], **schedule: Unpack[Schedule]
) -> Verb: ...


@overload
def on(
    event: Literal["after_validation_batch"],
    fn: Callable[[AfterValidationBatch], Directive],
    **schedule: Unpack[Schedule],
) -> Verb: ...


@overload
def on(
    event: Literal["after_validation"], fn: Callable[[AfterValidation], Directive], **schedule: Unpack[Schedule]
) -> Verb: ...


@overload
def on(
    event: Literal["after_evaluation"], fn: Callable[[AfterEvaluation], Directive], **schedule: Unpack[Schedule]
) -> Verb: ...


@overload
def on(event: Literal["after_epoch"], fn: Callable[[AfterEpoch], Directive], **schedule: Unpack[Schedule]) -> Verb: ...


@overload
def on(
    event: Literal["after_checkpoint"], fn: Callable[[AfterCheckpoint], Directive], **schedule: Unpack[Schedule]
) -> Verb: ...


@overload
def on(event: Literal["after_fit"], fn: Callable[[AfterFit], Directive], **schedule: Unpack[Schedule]) -> Verb: ...


def on(event: str, fn: Callable[[Any], Any], **schedule: Any) -> Verb:
    """Call a function at each event of a kind.

    Args:
        event: The name of the event, for example `"after_epoch"`.
        fn: A function of the event. It may return a directive: `Stop`, `Replace`, `Save` or `Validate`.
        schedule: `priority`, `every`, `once` and `when`, as for `fold`.

    Returns:
        A function from a trainer to a trainer with this hook after the others.

    Raises:
        ValueError: There is no such event; the error names the nearest one.

    >>> from mlx_fp import classification, nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(4, 2), classification()), on("after_epoch", print)).hooks
    (on('after_epoch', print),)
    """
    return with_hooks(hook(event, fn, **schedule))
