"""One update on several batches: their passes, evaluated one after another, and the update on the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..compile._compiled import Compiled
from ..compile._evaluation import wait_for
from ..core._types import Batch, Params, State
from ._across import Prepared
from ._carried import Logged
from ._rows import example_count
from .passes import Pass

__all__ = ["Accumulation"]


@dataclass(frozen=True, slots=True)
class Accumulation:
    """The compiled functions of an update on several batches."""

    first: Compiled
    """`first(params, opt_state, batch) -> Pass`: the pass over the first batch."""
    following: Compiled
    """`following(params, before, batch) -> Pass`: the mean of the passes so far and of the pass over one more batch."""
    finish: Compiled
    """`finish(mean_pass, params, metrics) -> Pass`: the pass ready for the update, for hooks between the halves."""
    close: Compiled
    """`close(params, mean_pass, metrics) -> (params, opt_state, logs, weights)`: the update."""

    @property
    def traces(self) -> int:
        """The number of traces of all these functions."""
        return sum(function.traces for function in (self.first, self.following, self.finish, self.close))

    def update(
        self, params: Params, opt_state: State, batches: Sequence[Batch], prepared: Prepared
    ) -> tuple[Params, State, Logged]:
        """Update on the mean over the batches."""
        mean_pass = self._mean_pass(params, opt_state, batches, prepared)
        params, opt_state, logs, weights = self.close(params, mean_pass, opt_state["metrics"])
        return params, opt_state, (logs, weights, sum(map(example_count, batches)))

    def gradients(self, params: Params, opt_state: State, batches: Sequence[Batch], prepared: Prepared) -> Pass:
        """Compute the mean over the batches, ready for the update."""
        mean_pass = self._mean_pass(params, opt_state, batches, prepared)
        ready: Pass = self.finish(mean_pass, params, opt_state["metrics"])
        return ready

    def _mean_pass(self, params: Params, opt_state: State, batches: Sequence[Batch], prepared: Prepared) -> Pass:
        """Compute the mean of the passes over the batches. Each pass is evaluated before the next one starts."""
        first, *others = batches
        mean_pass: Pass = self.first(params, opt_state, prepared(params, opt_state, first))
        for batch in others:
            wait_for(mean_pass)
            mean_pass = self.following(params, mean_pass, prepared(params, mean_pass.opt_state, batch))
        wait_for(mean_pass)
        return mean_pass
