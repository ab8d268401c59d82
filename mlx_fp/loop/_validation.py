"""Validation within a run: at the end of an epoch, or when a hook asks for it."""

from __future__ import annotations

from collections.abc import Generator

from ..core._errors import located
from ..data import Dataset
from ..optim import averaged
from ._evaluation import validated
from ._event import Event
from ._run import Run
from ._totals import Totals

__all__ = ["validate", "validate_now"]

Stream = Generator[Event, None, None]


def validate_now(run: Run, epoch: int) -> Stream:
    """Run a validation that a hook has asked for; one that is interrupted is repeated when the run is resumed."""
    if run.plan.validation is None:
        raise ValueError("a hook asked to Validate(), and there is no validation data")
    run.validate, totals = False, run.new_totals(None, run.plan.validation_reduce)
    try:
        yield from validate(run, epoch, run.plan.validation, totals)
    finally:
        run.validate = run.validate or not totals.means


def validate(run: Run, epoch: int, data: Dataset, totals: Totals) -> Stream:
    """Evaluate the parameters on data, into `totals`, and tell of it; an interrupt leaves `totals` without means."""
    where = {"split": "validation", "epoch": epoch, "batch": lambda: totals.batches, "stage": lambda: run.stage}
    with located(**where):
        yield from run.emit("before_validation", epoch=epoch)
        run.stage = "validation"
        params = averaged(run.opt_state)(run.params) if run.plan.averaged else run.params
        for batch, logs in validated(run.eval, params, data, totals, epoch=epoch):
            if "after_validation_batch" in run.heard:
                yield from run.emit("after_validation_batch", epoch=epoch, batch=batch, loss=logs["loss"])
                run.stage = "validation"
            if run.interrupted:
                return
        fields = {"val_loss": totals.means["loss"], "validation_batches": totals.batches}
        yield from run.emit("after_validation", epoch=epoch, **fields, val_metrics=totals.named())
