"""The events of a run, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..across._world import ALONE, World
from ..core._frozen import FrozenDict
from ..core._types import Array, Batch, Params, State, Tree
from ._copies import copy_arrays, copy_on_read
from ._run_state import RunState

if TYPE_CHECKING:
    from ..optim import Optimizer
    from ._report import Report
    from ._rows import Evaluation, Row, StepRow

__all__ = [
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
]


class _WithLoss:
    """An event with a lazy loss."""

    __slots__ = ()
    loss: Array

    @property
    def loss_value(self) -> float:
        """The loss as a float. Reading it waits for the device."""
        return float(self.loss.item())  # type: ignore[arg-type]  # MLX: item() is of any scalar type


@dataclass(frozen=True)
class Event:
    """An event of a run, with the state of that moment.

    The arrays of an event are copies: `+=` on them changes nothing in the run.
    """

    state: RunState


@copy_on_read(copy_arrays, "trainable")
@dataclass(frozen=True)
class BeforeFit(Event):
    """Before a run starts."""

    epochs_target: int | None
    steps_target: int | None
    start_epoch: int
    resumed_from_epoch: int | None
    batches: int | None
    """The number of batches in an epoch; None where it is not known before the epoch."""
    optimizer: Optimizer
    """The trainer's optimiser."""
    trainable: Params
    """The parameters that train, in a tree with holes in place of the others."""
    start_step: int = 0
    """The number of steps of the run before this start."""
    run: str = ""
    """The name of the run. A run that is resumed from its newest checkpoint keeps its name."""
    folder: str | None = None
    """The folder of the checkpoints; None without checkpoints."""
    setup: Mapping[str, object] = field(default_factory=FrozenDict)
    """The settings of the run as plain values, for example `setup["options"]["epochs"]`."""
    world: World = ALONE
    """The processes of the run."""


@dataclass(frozen=True, slots=True)
class BeforeEpoch(Event):
    """Before an epoch starts. The first epoch has the number 0."""

    epoch: int


@copy_on_read(copy_arrays, "batch")
@dataclass(frozen=True)
class BeforeStep(Event):
    """Before a step. `step` counts from 0 over the run, `index` from 0 over the batches of the epoch.

    With `accumulate` a step has several batches: `batch` is the list of them, and `index` is that of the first.
    """

    epoch: int
    batch: Batch
    step: int
    index: int


@copy_on_read(copy_arrays, "loss", "grads")
@dataclass(frozen=True)
class AfterBackward(BeforeStep, _WithLoss):
    """After the gradients of a step, before any clipping. A hook may return `Replace(grads=…)`."""

    loss: Array
    grads: Tree


@copy_on_read(copy_arrays, "loss", "logs")
@dataclass(frozen=True)
class AfterStep(BeforeStep, _WithLoss):
    """After a step. `loss` is lazy. Reading `loss_value` or `grad_norm` waits for the device."""

    loss: Array
    logs: State

    @property
    def grad_norm(self) -> float:
        """The norm of the gradients before clipping. KeyError unless the optimiser measures it: `clip_norm(inf)`."""
        from ..optim import reading

        return float(reading("grad_norm")(self.state.opt_state).item())


@dataclass(frozen=True, slots=True)
class AfterLog(Event):
    """After a logged step, see `log_every`. The event has the fields of its row, for example `e.loss`."""

    row: StepRow

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


@dataclass(frozen=True, slots=True)
class BeforeValidation(Event):
    """Before a validation, after `step` steps of the run."""

    epoch: int
    step: int


@copy_on_read(copy_arrays, "batch", "loss")
@dataclass(frozen=True)
class AfterValidationBatch(Event, _WithLoss):
    """After a validation batch. `index` counts from 0 over its validation set, whose name is `name`, or ""."""

    epoch: int
    batch: Batch
    loss: Array
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class AfterValidation(Event):
    """After a validation. The event has the fields of its row, for example `e.val_loss` and `e.improved`."""

    row: Evaluation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


@dataclass(frozen=True, slots=True)
class AfterEvaluation(AfterValidation):
    """After a verdict of the monitor: on a validation, or without validation data on the end of an epoch."""


@dataclass(frozen=True, slots=True)
class AfterEpoch(Event):
    """After an epoch. The event has the fields of its row, for example `e.loss` and `e.val_accuracy`."""

    row: Row

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


@dataclass(frozen=True, slots=True)
class AfterCheckpoint(Event):
    """After a checkpoint is on disk. `deleted` are the paths of the older ones that were deleted for it."""

    path: str
    epoch: int
    step: int
    monitor_value: float | None
    improved: bool
    deleted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AfterFit(Event):
    """After the run, whether it ended as planned or not: see `report.stop_reason`."""

    report: Report
    error: BaseException | None = None
    """The exception that ended the run; None where the run ended by itself, or its stream was closed."""
