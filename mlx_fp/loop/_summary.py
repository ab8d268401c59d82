"""What a run has come to so far: the row of an epoch, and the report of all."""

from __future__ import annotations

from ..checkpointing._writer import Writer
from ..tree._paths import fresh
from ._report import Report, Row
from ._state import Loop, LoopState
from ._totals import Means

__all__ = ["report_of", "row_of"]


def report_of(loop: Loop, state: LoopState, writer: Writer | None) -> Report:
    """Return the report of a run at a state."""
    plan, origin, train = loop.plan, loop.origin, state.moving.train
    return Report(
        rows=state.rows,
        losses=tuple(state.moving.sums.losses.values()),
        losses_kept=plan.keep_losses,
        monitor_name=loop.monitor.name,
        monitor_mode=loop.monitor.mode or "min",
        best_value=state.standing.best_value,
        best_epoch=state.standing.best_epoch,
        epochs_target=plan.epochs,
        epochs_completed=state.completed,
        epochs_ran=len([row for row in state.rows if row.epoch >= origin.epoch]),
        start_epoch=origin.epoch,
        stopped_early=state.stop is not None and state.completed < plan.epochs,
        stop_reason=None if state.stop is None else state.stop.reason,
        resume_from=origin.resume_from,
        resumed_from_epoch=origin.resumed_from_epoch,
        checkpoints=tuple(writer.written) if writer else (),
        policy=writer.policy.to_dict() if writer else None,
        params=fresh(train.params),
        opt_state=fresh(train.opt_state),
    )


def row_of(state: LoopState, seconds: float, timed: int, train: Means, validation: Means) -> Row:
    """Return the row of an epoch of its means, without a verdict; `seconds` timed so many of its examples."""
    return Row(
        epoch=state.epoch,
        batches=train.batches,
        examples=state.moving.sums.examples,
        steps=state.steps,
        epoch_loss=train.figures["loss"],
        metrics=train.named(),
        val_loss=validation.loss,
        val_metrics=validation.named(),
        validation_batches=validation.batches,
        seconds=seconds,
        timed=timed,
    )
