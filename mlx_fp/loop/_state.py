"""A run as values: `Loop`, which never changes, and `LoopState`, which is all that a run needs in order to go on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..checkpointing._writer import RunPosition, Writer
from ..core._frozen import FrozenDict, freeze_field
from ..core._types import Params
from ..data import Cursor
from ..step._carried import Carried
from ..store._packed import Encoder
from ._event import Event
from ._hook import Hook, HookState, Stop
from ._monitor import Monitor, Standing
from ._rows import Evaluation, Row, StepRow
from ._totals import Sums

if TYPE_CHECKING:
    from ..step._evaluate import EvalStep
    from ..step._protocol import FullStep
    from ._plan import Plan
    from ._trainer import Trainer

__all__ = ["Lineage", "Loop", "LoopState", "Moment", "Moments", "Moving", "Origin", "Requests", "World"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where this process took a run up."""

    epoch: int = 0
    resume_from: str | None = None
    resumed_from_epoch: int | None = None
    source: str | None = None
    """The kind of `resume`, in a word; None for a run that starts anew."""
    differences: tuple[str, ...] = ()
    """Why the run goes on inexactly."""


@dataclass(frozen=True, slots=True)
class Loop:
    """All of a run that does not change: what trains, how, and who listens."""

    trainer: Trainer
    plan: Plan
    step: FullStep
    evaluate: EvalStep
    monitor: Monitor
    hooks: tuple[Hook, ...]
    """The hooks in the order in which they run."""
    listeners: Mapping[str, tuple[int, ...]]
    """The numbers of the hooks of each event, by its name."""
    listened: frozenset[str]
    """The names of the events that a hook or the driver wants."""
    rates: Mapping[str, float]
    """The learning rates that the code starts with, by path."""
    in_flight: int | None
    """How many steps may be queued on the device before the loop waits for the oldest; None: all of an epoch."""
    odd_at_start: frozenset[str]
    """The paths of parameters and buffers that are not finite before the first step: a constant mask, for example."""
    silent: bool
    """Whether nobody listens to an event before an update."""
    sync: Callable[..., Any] | None = None
    """What is done with the results of a step; None: nothing."""
    origin: Origin = Origin()

    @property
    def takes_halves(self) -> bool:
        """Whether a hook comes between the gradients of a step and its update."""
        return "after_backward" in self.listened

    @property
    def judges_validation(self) -> bool:
        """Whether the monitor judges each validation; else it judges the end of an epoch."""
        return bool(self.plan.validation) and self.monitor.watches_validation

    def carry(self, params: Any, opt_state: Any) -> Carried:
        """Put a state into the form in which this loop takes steps."""
        as_trees = self.takes_halves or self.plan.accumulate > 1
        return Carried((params, opt_state)) if as_trees else self.step.carry(params, opt_state)


@dataclass(frozen=True, slots=True)
class Requests:
    """What hooks, signals and losses have asked of the loop. A stop is sticky: the first one stays."""

    stop: Stop | None = None
    save: bool = False
    validate: bool = False
    interrupted: bool = False
    """Whether a signal ends the run, without a last validation."""
    diverged: bool = False
    """Whether a loss that is not finite has ended the run."""


class Moving(NamedTuple):
    """The part of a run's state that each step changes; a NamedTuple, because one is made at each step."""

    train: Carried
    sums: Sums
    hooks: tuple[HookState, ...]
    requests: Requests = Requests()


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which run this is, and the runs that it branched off from, with the step at which it left each."""

    run: str = ""
    branches: Mapping[str, int] = field(default_factory=FrozenDict)

    def __post_init__(self) -> None:
        freeze_field(self, "branches")


@dataclass(frozen=True, slots=True)
class LoopState:
    """All that a run needs in order to go on."""

    moving: Moving
    epoch: int = 0
    opened: int = 0
    """The steps of the run when the epoch began."""
    rows: tuple[Row, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    completed: int = 0
    standing: Standing = field(default_factory=Standing)
    best_params: Params | None = None
    """The parameters of the best evaluation, where the plan keeps them."""
    lineage: Lineage = Lineage()

    @property
    def steps(self) -> int:
        """The steps of the run so far."""
        return self.opened + self.moving.sums.updates

    @property
    def cursor(self) -> Cursor:
        """Where the data go on."""
        return Cursor(self.epoch, self.moving.sums.batches)

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of this very step, None where there is none."""
        last = self.evaluations[-1] if self.evaluations else None
        return last if last is not None and last.step == self.steps else None

    @property
    def stop(self) -> Stop | None:
        """Why the run ends, None while it goes on."""
        return self.moving.requests.stop

    @property
    def held(self) -> RunPosition:
        """What a checkpoint of this state holds."""
        return RunPosition(self.steps, self.cursor, len(self.evaluations), self.ended)

    @property
    def ended(self) -> str | None:
        """Why a hook has ended the run for good, None while none has."""
        return next((state.ended for state in self.moving.hooks if state.ended is not None), None)

    def asking(self, **changes: Any) -> LoopState:
        """Return the state with other requests."""
        return replace(self, moving=self.moving._replace(requests=replace(self.moving.requests, **changes)))


class Moment(NamedTuple):
    """A state that a run passes through, and the event that made it, if any."""

    base: LoopState
    moving: Moving
    event: Event | None = None

    @property
    def state(self) -> LoopState:
        """The whole state of this moment."""
        return replace(self.base, moving=self.moving)


Moments = Generator[Moment, None, LoopState]
"""A part of a run: it is handed a state, yields the states that it passes through, and returns the last."""


@dataclass(frozen=True, slots=True)
class World:
    """The ports of a run: everything in it that has an effect outside."""

    writer: Writer | None = None
    asked: Callable[[], str | None] = lambda: None
    """Return the name of a signal that asks the run to end."""
    undisturbed: Callable[[], AbstractContextManager[Any]] = nullcontext
    """A context in which a second signal waits."""
    logged: list[StepRow] = field(default_factory=list)
    """Takes the rows of logged steps."""
    encoder: Encoder = field(default_factory=Encoder)
    """Encodes the rows of the run for its checkpoints, each once."""

    def deaf(self) -> World:
        """Return the ports of a run whose steps are over: a signal changes nothing in it."""
        return replace(self, asked=lambda: None)
