"""Validation within a run: at the end of an epoch, or when a hook asks for it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from ..core._errors import located
from ..optim import averaged
from ._checkpointing import saved_on_error
from ._evaluation import evaluated
from ._state import Loop, LoopState, Moment, Moments, World
from ._telling import heard, told
from ._totals import Means

__all__ = ["validated", "validated_now"]

Validated = Generator[Moment, None, "tuple[LoopState, Means]"]


def validated_now(loop: Loop, state: LoopState, world: World, epoch: int) -> Moments:
    """Run a validation that a hook has asked for; one that is interrupted is asked for still."""
    if loop.plan.validation is None:
        raise ValueError("a hook asked to Validate(), and there is no validation data")
    state, means = yield from validated(loop, state.asking(validate=False), world, epoch, asked=True)
    return state if means.figures else state.asking(validate=True)


def validated(loop: Loop, state: LoopState, world: World, epoch: int, asked: bool = False) -> Validated:
    """Evaluate the parameters on the validation data: the state, and means, without figures after an interrupt.

    One that was `asked` for and fails is asked for still in the checkpoint that the error leaves.
    """
    plan, stage, number = loop.plan, "before_validation", 0
    assert plan.validation is not None
    rescue = saved_on_error(loop, lambda: state.asking(validate=True) if asked else state, world, lambda: stage)
    with rescue, located(split="validation", epoch=epoch, batch=lambda: number, stage=lambda: stage):
        state = yield from told(loop, state, world, "before_validation", epoch=epoch)
        train, stage = state.moving.train, "validation"
        params = averaged(train.opt_state)(train.params) if plan.averaged else train.params
        data, reduce, in_flight = plan.validation, plan.validation_reduce, loop.in_flight
        parts = evaluated(loop.evaluate, params, data, reduce=reduce, in_flight=in_flight, epoch=epoch)
        with closing(parts):
            while True:
                try:
                    number, batch, logs = next(parts)
                except StopIteration as done:
                    means: Means = done.value
                    break
                fields = {"epoch": epoch, "batch": batch, "loss": logs["loss"], "index": number}
                stage = "after_validation_batch"
                state = yield from told(loop, state, world, "after_validation_batch", **fields)
                stage, number = "validation", number + 1
                state = heard(state, world)
                yield Moment(state, state.moving)
                if state.moving.requests.interrupted:
                    return state, Means(batches=number - 1)  # this one counts for nothing
        stage = "after_validation"
        fields = {"val_loss": means.loss, "validation_batches": means.batches, "val_metrics": means.named()}
        state = yield from told(loop, state, world, "after_validation", epoch=epoch, **fields)
        return state, means
