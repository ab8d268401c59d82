"""A run as values: `Loop` never changes, and `LoopState` is all that a run needs in order to continue."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..checkpointing._writer import RunPosition, Writer
from ..core._frozen import FrozenDict, freeze_field
from ..core._types import Params, State
from ..data import Cursor
from ..step._carried import Carried
from ..store._packed import Encoder
from ._directive import Stop
from ._event import Event
from ._hook import Hook, HookState
from ._link import Alone, Link
from ._monitor import BestSoFar, Monitor
from ._requests import Requests
from ._rows import Evaluation, Row, StepRow
from ._totals import Sums

if TYPE_CHECKING:
    from ..step._evaluate import EvalStep
    from ..step._protocol import FullStep
    from ._plan import Plan
    from ._trainer_record import Trainer

__all__ = ["Lineage", "Loop", "LoopState", "Moment", "Moments", "Moving", "Origin", "Ports"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The point of a run at which this process started."""

    epoch: int = 0
    resume_from: str | None = None
    resumed_from_epoch: int | None = None
    source: str | None = None
    """The kind of `resume`, for example "latest"; None for a new run."""
    differences: tuple[str, ...] = ()
    """The reasons why the resumed run is inexact."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The constant part of a run: trainer, plan, step, and listeners."""

    trainer: Trainer
    plan: Plan
    step: FullStep
    evaluate: EvalStep
    monitor: Monitor
    hooks: tuple[Hook, ...]
    """The hooks, sorted by priority."""
    listeners: Mapping[str, tuple[int, ...]]
    """The indices of the hooks of each event, by the name of the event."""
    listened: frozenset[str]
    """The names of the events with a listener: a hook or the driver."""
    rates: Mapping[str, float]
    """The initial learning rates of the optimiser, by path."""
    in_flight: int | None
    """The number of steps that may be queued on the device before the loop waits. None: all steps of an epoch."""
    nonfinite_at_start: frozenset[str]
    """The paths of arrays that are not finite before the first step, for example a constant mask."""
    silent: bool
    """Whether no event before an update has a listener."""
    sync: Callable[..., None] | None = None
    """The function that queues or evaluates the results of a step; None: they stay lazy."""
    layers: Mapping[str, object] | None = None
    """The layers of the model as plain values, for the report; None where it has no summary."""
    origin: Origin = Origin()

    @property
    def takes_halves(self) -> bool:
        """Whether an event between the gradients of a step and its update has a listener."""
        return "after_backward" in self.listened

    @property
    def judges_validation(self) -> bool:
        """Whether the monitor judges each validation. Otherwise it judges the end of each epoch."""
        return bool(self.plan.validation) and self.monitor.watches_validation

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Return parameters and optimiser state in the form in which this loop takes steps."""
        as_trees = self.takes_halves or self.plan.accumulate > 1
        return Carried((params, opt_state)) if as_trees else self.step.carry(params, opt_state)


class Moving(NamedTuple):
    """The part of the state that each step changes. It is a NamedTuple, which is fast to make."""

    train: Carried
    sums: Sums
    hooks: tuple[HookState, ...]
    requests: Requests = Requests()


@dataclass(frozen=True, slots=True)
class Lineage:
    """The name of a run, and the runs from which it branched off, each with the step of the branch."""

    run: str = ""
    branches: Mapping[str, int] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        freeze_field(self, "branches")


@dataclass(frozen=True, slots=True)
class LoopState:
    """All that a run needs in order to continue."""

    moving: Moving
    epoch: int = 0
    epoch_start_step: int = 0
    """The number of steps of the run at the start of the epoch."""
    rows: tuple[Row, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    completed: int = 0
    best: BestSoFar = field(default_factory=BestSoFar)
    best_params: Params | None = None
    """The parameters of the best evaluation, with `keep_best=True`."""
    lineage: Lineage = Lineage()

    @property
    def steps(self) -> int:
        """The number of steps of the run so far."""
        return self.epoch_start_step + self.moving.sums.updates

    @property
    def cursor(self) -> Cursor:
        """The position in the data."""
        return Cursor(self.epoch, self.moving.sums.batches)

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation at this step; None where there is none."""
        last = self.evaluations[-1] if self.evaluations else None
        return last if last is not None and last.step == self.steps else None

    @property
    def stop(self) -> Stop | None:
        """The request to stop; None while the run continues."""
        return self.moving.requests.stop

    @property
    def held(self) -> RunPosition:
        """The identity of this state among checkpoints."""
        return RunPosition(self.steps, self.cursor, len(self.evaluations), self.ended)

    @property
    def ended(self) -> str | None:
        """The reason of a final stop of a hook; None without one."""
        return next((state.ended for state in self.moving.hooks if state.ended is not None), None)

    def with_requests(self, **changes: Any) -> LoopState:
        """Return the state with changed requests."""
        return replace(self, moving=self.moving._replace(requests=replace(self.moving.requests, **changes)))


class Moment(NamedTuple):
    """A state that a run passes through, and the event at this point, if any."""

    base: LoopState
    moving: Moving
    event: Event | None = None

    @property
    def state(self) -> LoopState:
        """The complete state."""
        return replace(self.base, moving=self.moving)


Moments = Generator[Moment, None, LoopState]
"""A part of a run: a generator that yields the states that it passes through, and returns the last state."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of a run: all its effects on files, signals and logs."""

    writer: Writer | None = None
    link: Link = field(default_factory=Alone)
    """The link to the same run in other processes."""
    deaf: bool = False
    """Whether signals have no effect."""
    undisturbed: Callable[[], AbstractContextManager[object]] = nullcontext
    """A context that delays a second signal."""
    logged: list[StepRow] = field(default_factory=list)
    """The rows of logged steps. The run appends to this list."""
    watch: Callable[[Moment], None] | None = None
    """A function that sees each moment of the run, for a display of its progress."""
    encoder: Encoder = field(default_factory=Encoder)
    """The encoder of rows for checkpoints. It encodes each row once."""

    def log(self, row: StepRow) -> None:
        """Keep the row of a logged step, and write it into the folder of the run if there is one."""
        self.logged.append(row)
        if self.writer is not None and self.writer.folder is not None:
            self.writer.folder.log(row.to_dict)

    def asked(self) -> str | None:
        """Return the name of a signal that asks the run to end, or None."""
        return None if self.deaf else self.link.asked()

    def at_end(self) -> Ports:
        """Return the ports for the end of a run: a signal has no effect after the last step."""
        return replace(self, deaf=True)
