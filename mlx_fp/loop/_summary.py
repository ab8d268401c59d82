"""What a run has come to so far: the row of an epoch, and the report of all."""

from __future__ import annotations

from math import nan

from ..tree._paths import fresh
from ._report import Report
from ._rows import Row
from ._state import Loop, LoopState, World
from ._totals import Means

__all__ = ["report_of", "row_of"]


def report_of(loop: Loop, state: LoopState, world: World) -> Report:
    """Return the report of a run at a state."""
    writer, logged = world.writer, world.logged
    plan, origin, train = loop.plan, loop.origin, state.moving.train
    return Report(
        rows=state.rows,
        evaluations=state.evaluations,
        steps=tuple(logged),
        losses=tuple(state.moving.sums.losses.values()),
        losses_kept=plan.keep_losses,
        monitor_name=loop.monitor.name,
        monitor_mode=loop.monitor.mode or "min",
        best_value=state.standing.best_value,
        best_epoch=state.standing.best_epoch,
        best_step=state.standing.best_step,
        epochs_target=plan.epochs,
        steps_target=plan.steps,
        epochs_completed=state.completed,
        epochs_ran=len([row for row in state.rows if row.epoch >= origin.epoch]),
        start_epoch=origin.epoch,
        stopped_early=state.stop is not None and not plan.is_over(state.completed, state.steps),
        stop_reason=None if state.stop is None else state.stop.reason,
        resume_from=origin.resume_from,
        resumed_from_epoch=origin.resumed_from_epoch,
        checkpoints=tuple(writer.written) if writer else (),
        policy=writer.policy.to_dict() if writer else None,
        params=fresh(train.params),
        opt_state=fresh(train.opt_state),
        best_params=None if state.best_params is None else fresh(state.best_params),
    )


def row_of(state: LoopState, epoch: int, seconds: float, timed: int, train: Means, validation: Means) -> Row:
    """Return the row of an epoch of its means, without a verdict; `seconds` timed so many of its examples."""
    return Row(
        epoch=epoch,
        batches=train.batches,
        examples=state.moving.sums.examples,
        steps=state.steps,
        epoch_loss=train.figures.get("loss", nan),
        metrics=train.named(),
        val_loss=validation.loss,
        val_metrics=validation.named(),
        validation_batches=validation.batches,
        seconds=seconds,
        timed=timed,
    )
