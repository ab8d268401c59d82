"""One update on several batches: their passes one after the other, evaluated between, and the mean of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..compile._compiled import Compiled
from ..core._mlx import mx
from ..core._types import Batch, Params, State
from ._carried import Logged
from ._rows import example_count
from .passes import Pass

__all__ = ["Accumulation"]


@dataclass(frozen=True, slots=True)
class Accumulation:
    """The compiled functions of an update on several batches."""

    first: Compiled
    """`first(params, opt_state, batch) -> Pass`."""
    following: Compiled
    """`following(params, before, batch) -> Pass`: the mean of the passes so far and that over one more batch."""
    finish: Compiled
    """`finish(done, params, metrics) -> Pass`: the pass ready for the update, for hooks between the halves."""
    close: Compiled
    """`close(params, done, metrics) -> (params, opt_state, logs, weights)`: the update."""

    @property
    def traces(self) -> int:
        """How often the functions have been traced."""
        return sum(part.traces for part in (self.first, self.following, self.finish, self.close))

    def update(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> tuple[Params, State, Logged]:
        """Update on the mean over the batches."""
        done = self._passes(params, opt_state, batches)
        params, opt_state, logs, weights = self.close(params, done, opt_state["metrics"])
        return params, opt_state, (logs, weights, sum(map(example_count, batches)))

    def gradients(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> Pass:
        """Compute the mean over the batches, ready for the update."""
        done: Pass = self.finish(self._passes(params, opt_state, batches), params, opt_state["metrics"])
        return done

    def _passes(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> Pass:
        """Compute the mean of the passes over the batches, each evaluated before the next one is begun."""
        head, *others = batches
        done: Pass = self.first(params, opt_state, head)
        for batch in others:
            mx.eval(done)
            done = self.following(params, done, batch)
        mx.eval(done)
        return done
