"""The rows of logged steps: what they hold is read late, as losses are."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from ..core._frozen import FrozenDict
from ..core._mlx import mx
from ..core._types import Array, State
from ..optim._state import stages
from ..step._carried import Carried
from ..task._task import Task
from ._report import StepRow
from ._totals import Sums

__all__ = ["Clock", "Pending", "keeps_norm", "logged", "pending"]

_MEASURED = ("loss", "grad_norm")


class Clock(NamedTuple):
    """When a log was written, and what had been trained on in the epoch then."""

    seconds: float
    rows: int = 0
    weight: float = 0.0

    @classmethod
    def start(cls, sums: Sums) -> Clock:
        """Return the clock at the beginning of an epoch, or of the rest of one."""
        return cls(time.perf_counter(), sums.examples, _weight(sums))

    def later(self, seconds: float) -> Clock:
        """Return the clock as if the time that went by in something else had not."""
        return self._replace(seconds=self.seconds + seconds)


class Pending(NamedTuple):
    """A step that is due to be logged, of which nothing has been read."""

    logs: State
    step: int
    """Steps of the run, this one counted."""
    epoch: int
    rows: int
    """The rows of the epoch, those of this step counted."""
    rate: Array | None
    norm: Array | None


def keeps_norm(opt_state: State) -> bool:
    """Tell whether the optimiser measures the norm of the gradients, as `clip_norm` does."""
    return any("grad_norm" in stage for _, stage in stages(opt_state["optimizer"]))


def pending(sums: Sums, train: Carried, step: int, epoch: int) -> Pending:
    """Return the newest step, with the arrays that its row is made of; none of them is waited for."""
    logs: State = sums.queue[1][0]
    state = train.lazy_opt_state().get("optimizer", {})
    rate = next((stage["learning_rate"] for _, stage in stages(state) if "learning_rate" in stage), None)
    norm = logs.get("grad_norm")
    if norm is None and keeps_norm({"optimizer": state}):
        norm = _norm(state)
    mx.async_eval([array for array in (rate, norm) if array is not None])
    return Pending(logs, step, epoch, sums.examples, rate, norm)


def logged(due: Pending, sums: Sums, clock: Clock, task: Task) -> tuple[StepRow, Clock]:
    """Return the row of a step whose logs are in the sums, and the clock for the next one."""
    now = Clock(time.perf_counter(), due.rows, _weight(sums))
    seconds = max(now.seconds - clock.seconds, 1e-9)
    counts_tokens = task.unit == "tokens"
    row = StepRow(
        step=due.step,
        epoch=due.epoch,
        loss=_float(due.logs["loss"]),
        figures=FrozenDict({name: _float(value) for name, value in due.logs.items() if name not in _MEASURED}),
        learning_rate=None if due.rate is None else _float(due.rate),
        grad_norm=None if due.norm is None else _float(due.norm),
        rows_per_second=(now.rows - clock.rows) / seconds,
        tokens_per_second=(now.weight - clock.weight) / seconds if counts_tokens else None,
        peak_memory=mx.get_peak_memory(),
    )
    return row, now


def _norm(state: State) -> Array:
    """Return the norm that the optimiser keeps; of several groups, that of all their gradients."""
    norms = [stage["grad_norm"] for _, stage in stages(state) if "grad_norm" in stage]
    return norms[0] if len(norms) == 1 else mx.sqrt(sum((norm * norm for norm in norms), mx.array(0.0)))


def _weight(sums: Sums) -> float:
    return sums.read.figures.get("loss", (0.0, 0.0))[1]


def _float(value: Any) -> float:
    return float(value.item())
