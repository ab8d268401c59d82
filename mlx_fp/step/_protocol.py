"""The interface of a training step, for steps of one's own, and the parts that a simple one leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from ..core._types import Array, Batch, Params, State, Tree
from ..task._folds import Metric
from ._carried import Carried, Logged
from ._rows import example_count
from .passes import Pass

__all__ = ["FullStep", "Step", "check_uses", "full_step"]


@runtime_checkable
class Step(Protocol):
    """A training step: pure functions of parameters and state. `train_step` makes one; a run takes any.

    A step may have the further methods of `FullStep`; a run does without those that are missing.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that each step folds into `opt_state["metrics"]`."""

    @property
    def traces(self) -> int:
        """How often the step has been traced."""

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make `(params, opt_state)` of a seed or key, or around given parameters; `opt_state` has `metrics`."""

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step; the logs have `loss`, a scalar."""


class FullStep(Step, Protocol):
    """A step with its halves, with an update on several batches, and with a form of its own for its state."""

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the parameters and buffers, 0 where they are not known."""

    def trainable(self, params: Params) -> Params:
        """Return the parameters that train, in a tree with holes for the others."""

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form that `advance` takes."""

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step on each batch; return the logs of each, with weights and examples."""

    def accumulated(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> tuple[Params, State, Logged]:
        """Make one update on several batches."""

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first half of a step."""

    def accumulated_gradients(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> Pass:
        """Compute the first half of an update on several batches."""

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """Compute the second half of a step."""


@dataclass(frozen=True, slots=True)
class _Simple:
    """A step that has no more than `Step` asks for, with a form for a run; `check_uses` refuses runs that need more."""

    step: Step
    parameter_bytes: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(self.step.metrics)

    @property
    def traces(self) -> int:
        return self.step.traces

    def init(self, start: Any, *, seed: Any = 0) -> tuple[Params, State]:
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


def check_uses(step: FullStep, *, accumulates: bool, halves: bool) -> None:
    """Raise TypeError where a run wants more of a step than it has."""
    if isinstance(step, _Simple) and accumulates:
        raise TypeError(f"accumulate needs a step with `accumulated`, and {step.step!r} has none")
    if isinstance(step, _Simple) and halves:
        raise TypeError(f"hooks of after_backward need a step with `gradients` and `update`; {step.step!r} has none")


def full_step(step: Any) -> FullStep:
    """Return a step with all methods that a run uses. TypeError for something that is no step."""
    missing = [name for name in ("init", "metrics", "traces") if not hasattr(step, name)]
    if missing or not callable(step):
        raise TypeError(f"a step is callable and has init, metrics and traces; {step!r} lacks {', '.join(missing)}")
    return cast(FullStep, step if hasattr(step, "advance") else _Simple(step))
