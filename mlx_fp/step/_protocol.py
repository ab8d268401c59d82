"""The interface of a training step, which a user may implement, and the methods that a simple step leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from ..across._flags import Flags
from ..across._message import Figures
from ..core._types import Array, Batch, Params, State, Tree
from ..task._folds import Metric
from ._carried import Carried, Logged
from ._rows import example_count
from .passes import Pass

__all__ = ["FullStep", "Step", "check_uses", "full_step"]


@runtime_checkable
class Step(Protocol):
    """A training step: pure functions of parameters and state. `train_step` makes one; a run takes any.

    A step may have the further methods of `FullStep`. A run works without the missing ones. For example, only a step
    with `gradients` and `update` allows hooks between the halves.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, whose memory each step updates in `opt_state["metrics"]`."""

    @property
    def traces(self) -> int:
        """The number of traces of the step."""

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make `(params, opt_state)` of a seed, a key or parameters; `opt_state` has an entry `metrics`."""

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step: `(params, opt_state, logs)`. The logs have a scalar under `loss`."""


class FullStep(Step, Protocol):
    """A step with its two halves, with an update on several batches, and with a form for its state."""

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the parameters that train; 0 where they are not known."""

    def trainable(self, params: Params) -> Params:
        """Return the parameters that train, in a tree with a hole, an empty dict, for each other one."""

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form that `advance` takes."""

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step on each batch; return for each the logs, their weights and the number of examples."""

    def accumulated(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> tuple[Params, State, Logged]:
        """Make one update on several batches."""

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first half of a step."""

    def accumulated_gradients(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> Pass:
        """Compute the first half of an update on several batches."""

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """Compute the second half of a step."""

    def send(
        self,
        params: Params,
        flags: Flags,
        figures: Figures | None = None,
        memory: State | None = None,
    ) -> tuple[Flags, Figures, list[State]]:
        """Send a message to the other processes without a step."""


@dataclass(frozen=True, slots=True)
class _Simple:
    """A step with the methods of `Step` alone, and the form that a run needs.

    `check_uses` refuses a run that needs more methods.
    """

    step: Step
    parameter_bytes: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(self.step.metrics)

    @property
    def traces(self) -> int:
        return self.step.traces

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        return self.step.init(start, seed=seed)

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        return self.step(params, opt_state, batch)

    def trainable(self, params: Params) -> Params:
        return params

    def carry(self, params: Params, opt_state: State) -> Carried:
        return Carried((params, opt_state))

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        params, opt_state, logged = state.params, state.opt_state, list[Logged]()
        for batch in batches:
            params, opt_state, logs = self.step(params, opt_state, batch)
            count = example_count(batch)
            logged.append((logs, dict.fromkeys(logs, count), count))
        return Carried((params, opt_state)), tuple(logged)


def check_uses(step: FullStep, *, accumulates: bool, halves: bool, sends: bool) -> None:
    """Raise TypeError where a run needs a method that the step lacks."""
    shown = step.step if isinstance(step, _Simple) else step
    if accumulates and not hasattr(step, "accumulated"):
        raise TypeError(f"accumulate needs a step with `accumulated`, and {shown!r} has none")
    if halves and not (hasattr(step, "gradients") and hasattr(step, "update")):
        raise TypeError(f"hooks of after_backward need a step with `gradients` and `update`; {shown!r} has none")
    if sends and not hasattr(step, "send"):
        raise TypeError(f"several processes need a step with `send`, and {shown!r} has none")


def full_step(step: object) -> FullStep:
    """Return a step with all methods that a run uses; TypeError for a value that is no step."""
    missing = [name for name in ("init", "metrics", "traces") if not hasattr(step, name)]
    if missing or not callable(step):
        raise TypeError(f"a step is callable and has init, metrics and traces; {step!r} lacks {', '.join(missing)}")
    return cast(FullStep, step if hasattr(step, "advance") else _Simple(cast(Step, step)))
