"""The row of an epoch, and the report of a run at any state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import nan

from ..core._frozen import FrozenDict
from ..core._plain import as_plain
from ..core._signature import name_of
from ..core._types import Params
from ..nn._layer import Layer
from ..nn._summary import summary
from ..tree._paths import copy_arrays
from ._options import OPTIONS
from ._report import Report
from ._rows import Row
from ._setup import Setup
from ._state import Loop, LoopState, Ports
from ._totals import Means

__all__ = ["layers_of", "report_of", "row_of", "settings_of", "setup_of"]

_NOT_PLAIN = ("train", "yielded", "validation", "resume", "params")
"""The fields of a plan that are no plain options."""


def report_of(loop: Loop, state: LoopState, ports: Ports) -> Report:
    """Return the report of a run at a state."""
    writer, logged = ports.writer, ports.logged
    plan, origin, train = loop.plan, loop.origin, state.moving.train
    return Report(
        rows=state.rows,
        evaluations=state.evaluations,
        steps=tuple(logged),
        losses=tuple(state.moving.sums.losses.values()),
        losses_kept=plan.keep_losses,
        monitor_name=loop.monitor.name,
        monitor_mode=loop.monitor.mode or "min",
        best_value=state.best.best_value,
        best_epoch=state.best.best_epoch,
        best_step=state.best.best_step,
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
        setup=setup_of(loop),
        params=copy_arrays(train.params),
        opt_state=copy_arrays(train.opt_state),
        best_params=None if state.best_params is None else copy_arrays(state.best_params),
        model=loop.layers,
    )


def row_of(state: LoopState, epoch: int, seconds: float, timed: int, train: Means, validation: Means) -> Row:
    """Return the row of an epoch without a verdict. `timed` of its examples took `seconds`."""
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


def setup_of(loop: Loop) -> Setup:
    """Return the settings of a run."""
    plan, origin, monitor = loop.plan, loop.origin, loop.monitor
    options = {each.name: as_plain(getattr(plan, each.name)) for each in fields(plan) if each.name not in _NOT_PLAIN}
    kind = "inexact" if origin.differences else "exact"
    return Setup(
        train=repr(plan.train),
        validation={name: repr(data) for name, data in plan.validation.items()},
        optimizer=loop.trainer.optimizer.name,
        monitor_metric=None if monitor.metric is None else name_of(monitor.metric),
        min_delta=monitor.min_delta,
        resume_source=origin.source,
        resume_kind="fresh" if origin.source is None else kind,
        differences=origin.differences,
        params_given=plan.params is not None,
        options=options,
        settings=loop.trainer.settings,
        changed=tuple(name for name, value in options.items() if _is_changed(name, value, plan.steps)),
    )


def settings_of(loop: Loop) -> Mapping[str, object]:
    """Return the settings of a run, its model, task and learning rates as plain values by name."""
    trainer, policy = loop.trainer, loop.trainer.policy
    settings = {
        "model": trainer.model.name,
        "task": repr(trainer.task),
        "monitor": loop.monitor.name,
        "learning_rates": dict(loop.rates),
        "user": None if policy is None or policy.user is None else dict(policy.user),
        **setup_of(loop).to_dict(),
        "optimizer": repr(trainer.optimizer),
    }
    return FrozenDict(settings)


def _is_changed(name: str, value: object, steps: int | None) -> bool:
    """Tell whether an option differs from its default. Without a length a run has one epoch."""
    default = 1 if name == "epochs" and steps is None else OPTIONS[name].default
    return bool(value != as_plain(default))


def layers_of(model: Layer, params: Params) -> Mapping[str, object] | None:
    """Return the layers of a model as plain values; None for parameters that are not those of the model alone."""
    try:
        return FrozenDict(summary(model, params).to_dict())
    except (TypeError, ValueError, AttributeError, KeyError, IndexError):
        return None
