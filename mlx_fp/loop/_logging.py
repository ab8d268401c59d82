"""The rows of logged steps. Their values are read late, as losses are, so that logging does not wait."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..compile._evaluation import queue
from ..core._frozen import FrozenDict
from ..core._mlx import mx
from ..core._types import Array, State
from ..optim._state import stages
from ..step._carried import Carried, Logged
from ..task._task import Task
from ._dispatching import dispatch
from ._nonfinite import read_all_but
from ._rows import StepRow
from ._state import Loop, LoopState, Moment, Moving, Ports
from ._totals import Sums

__all__ = ["Log", "note_due", "write_all", "write_due"]

MEASURED = ("learning_rate", "grad_norm")
"""The values that a step logs beside the loss and its figures, with `train_step(measure=True)`."""


class Clock(NamedTuple):
    """The time of the last row, and the rows and the weight of the epoch up to it."""

    seconds: float
    rows: int = 0
    weight: float = 0.0


class Pending(NamedTuple):
    """A step that is due to be logged. Nothing of it has been read."""

    logs: State
    step: int
    """Steps of the run, including this one."""
    epoch: int
    rows: int
    """Rows of the epoch, including those of this step."""
    rate: Array | None
    norm: Array | None


def pending_step(logs: State, rows: int, train: Carried, step: int, epoch: int) -> Pending:
    """Return a step with the arrays of its row, without waiting for them.

    A step that does not log its learning rate and norm has them in the state of its optimiser, if at all.
    """
    rate, norm = (logs.get(name) for name in MEASURED)
    if rate is None or norm is None:
        optimizer_states = [stage for _, stage in stages(train.lazy_opt_state().get("optimizer", {}))]
        rate = _first(optimizer_states, "learning_rate") if rate is None else rate
        norm = _first(optimizer_states[:1], "grad_norm") if norm is None else norm
        queue([array for array in (rate, norm) if array is not None])
    return Pending(logs, step, epoch, rows, rate, norm)


class Log(NamedTuple):
    """The steps that are due to be logged, oldest first, and the time of the last row."""

    due: tuple[Pending, ...]
    clock: Clock

    @classmethod
    def start(cls, sums: Sums) -> Log:
        """Return the log at the start of an epoch, or of the rest of one."""
        return cls((), Clock(time.perf_counter(), sums.examples, _weight(sums)))

    def later(self, seconds: float) -> Log:
        """Return the log without the time that was spent on other work."""
        return Log(self.due, self.clock._replace(seconds=self.clock.seconds + seconds))


def note_due(loop: Loop, state: LoopState, moving: Moving, logs: Sequence[Logged], log: Log) -> Log:
    """Add those of the newest steps that are due to be logged."""
    every, sums = loop.plan.log_every or 1, moving.sums
    step, rows = state.epoch_start_step + sums.updates - len(logs), sums.examples - sum(each[2] for each in logs)
    due = list(log.due)
    for values, _, examples in logs:
        step, rows = step + 1, rows + examples
        if step % every == 0:
            due.append(pending_step(values, rows, moving.train, step, state.epoch))
    return Log(tuple(due), log.clock)


def write_due(
    loop: Loop, state: LoopState, moving: Moving, ports: Ports, log: Log, in_flight: int | None
) -> Generator[Moment, None, tuple[Moving, Log]]:
    """Log the due steps that are no longer in flight. `in_flight=None` logs none of them."""
    due, clock = log
    newest = state.epoch_start_step + moving.sums.updates
    while due and in_flight is not None and due[0].step <= newest - in_flight:
        moving = read_all_but(loop, state, moving, newest - due[0].step)
        row, clock = step_row(due[0], moving.sums, clock, loop.trainer.task)
        due = due[1:]
        ports.log(row)
        state = yield from dispatch(loop, replace(state, moving=moving), ports, "after_log", row=row)
        moving = state.moving
    return moving, Log(due, clock)


def write_all(loop: Loop, state: LoopState, ports: Ports, log: Log) -> LoopState:
    """Log all due steps although no driver reads their events. Return the new state."""
    moments = write_due(loop, state, state.moving, ports, log, 0)
    while True:
        try:
            next(moments)
        except StopIteration as done:
            return replace(state, moving=done.value[0])


def step_row(due: Pending, sums: Sums, clock: Clock, task: Task) -> tuple[StepRow, Clock]:
    """Return the row of a step that has been read, and the clock for the next row."""
    now = Clock(time.perf_counter(), due.rows, _weight(sums))
    seconds = max(now.seconds - clock.seconds, 1e-9)
    counts_tokens = task.unit == "tokens"
    row = StepRow(
        step=due.step,
        epoch=due.epoch,
        loss=_float(due.logs["loss"]),
        figures=FrozenDict(
            {name: _float(value) for name, value in due.logs.items() if name not in ("loss", *MEASURED)}
        ),
        learning_rate=None if due.rate is None else _float(due.rate),
        grad_norm=None if due.norm is None else _float(due.norm),
        rows_per_second=(now.rows - clock.rows) / seconds,
        tokens_per_second=(now.weight - clock.weight) / seconds if counts_tokens else None,
        peak_memory=mx.get_peak_memory(),
    )
    return row, now


def _first(states: Sequence[State], name: str) -> Array | None:
    """Return the value of a name in the first state that has it."""
    return next((state[name] for state in states if name in state), None)


def _weight(sums: Sums) -> float:
    return sums.read.figures.get("loss", (0.0, 0.0))[1]


def _float(value: Array) -> float:
    return float(value.item())  # type: ignore[arg-type]  # MLX: item() is of any scalar type
