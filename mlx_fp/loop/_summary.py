"""What a run has come to so far: the row of an epoch, and the report of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..tree._paths import fresh
from ._report import Report, Row
from ._totals import Totals

if TYPE_CHECKING:
    from ._run import Run

__all__ = ["report_of", "row_of"]


def report_of(run: Run) -> Report:
    """Return the report of a run as it stands."""
    return Report(
        rows=tuple(run.rows),
        losses=tuple(run.losses or ()),
        losses_kept=run.plan.keep_losses,
        monitor_name=run.monitor.name,
        monitor_mode=run.monitor.mode or "min",
        best_value=run.standing.best_value,
        best_epoch=run.standing.best_epoch,
        epochs_target=run.plan.epochs,
        epochs_completed=run.completed,
        epochs_ran=len([row for row in run.rows if row.epoch >= run.start_epoch]),
        start_epoch=run.start_epoch,
        stopped_early=run.stop is not None and run.completed < run.plan.epochs,
        stop_reason=None if run.stop is None else run.stop.reason,
        resume_from=run.resume_from,
        resumed_from_epoch=run.resumed_from_epoch,
        checkpoints=tuple(run.saver.written) if run.saver else (),
        policy=run.saver.policy.to_dict() if run.saver else None,
        params=fresh(run.params),
        opt_state=fresh(run.opt_state),
    )


def row_of(epoch: int, steps: int, seconds: float, train: Totals, validation: Totals) -> Row:
    """Return the row of an epoch of its sums, without a verdict."""
    return Row(
        epoch=epoch,
        batches=train.batches,
        examples=train.examples,
        steps=steps,
        epoch_loss=train.means["loss"],
        metrics=train.named(),
        val_loss=validation.means.get("loss"),
        val_metrics=validation.named(),
        validation_batches=validation.batches,
        seconds=seconds,
    )
