"""Measure the peak memory of the step of a run on batches of few rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias

from ..compile._evaluation import queue
from ..core._mlx import mx
from ..core._types import Batch, Params, State
from ..core.backend import device_backend
from ..step._carried import Carried
from ..step._protocol import FullStep
from ..step._rows import resize_rows
from ..tree._paths import leaves
from ._plan import SYNC, Plan
from ._starting import first_state, make_step, with_skips
from ._totals import IN_FLIGHT
from ._trainer_record import Trainer

__all__ = ["Held", "Meter", "measuring"]

_STEPS = 6
"""Steps on each number of rows. Their peaks differ, because MLX computes while it still queues. The highest counts."""

Peak: TypeAlias = Callable[[FullStep, Carried, list[Batch]], tuple[Carried, int]]
"""`peak(step, state, batches) -> (state, bytes)`: take steps, and return the peak memory of the process."""


class Held(NamedTuple):
    """The bytes that a run holds from step to step, and all other bytes that the process holds."""

    parameters: int
    """Of the parameters that train."""
    frozen: int
    """Of the parameters that do not train, and of the buffers."""
    state: int
    """Of the state of the step: the memory of the optimiser and of the metrics, and the random key."""
    other: int


class Meter(NamedTuple):
    """Functions that measure the peak memory of the process, in bytes, on batches with a number of rows."""

    held: Held
    step: Callable[[int], int]
    """The peak of whole steps."""
    gradients: Callable[[int], int] | None
    """The peak of the first half of a step. None for a step without halves."""


@contextmanager
def measuring(trainer: Trainer, plan: Plan, batch: Batch) -> Iterator[Meter]:
    """Within, yield a `Meter` for the run of a plan. The parameters exist once, and are dropped at the end.

    MLX's counter of the peak starts again with each measurement. It cannot be put back.
    """
    trainer = with_skips(trainer, plan)
    step = make_step(trainer, plan)
    with device_backend().tuned(step.parameter_bytes):
        params, opt_state = first_state(step, plan)
        held, states = _held(step, params, opt_state), [Carried((params, opt_state))]
        del params, opt_state  # a measurement takes the state out of the list, so that nothing else keeps its arrays

        def measure(peak: Peak, rows: int) -> int:
            batches = [resize_rows(batch, rows)] * min(plan.accumulate, 2)
            mx.eval(batches)
            fresh = make_step(trainer, plan)  # many shapes of one step would be a warning
            state, result = peak(fresh, states.pop(), batches)
            states.append(state)
            return result

        halves = (lambda rows: measure(_gradients_peak, rows)) if hasattr(step, "gradients") else None
        whole = partial(_step_peak, SYNC.get(plan.sync, queue))
        try:
            yield Meter(held, lambda rows: measure(whole, rows), halves)
        finally:
            states.clear()
            mx.clear_cache()


def _held(step: FullStep, params: Params, opt_state: State) -> Held:
    """Return the bytes that a run holds before its first step."""
    trained, whole, state = (_bytes(tree) for tree in (step.trainable(params), params, opt_state))
    mx.synchronize()
    return Held(trained, whole - trained, state, max(0, int(mx.get_active_memory()) - whole - state))


def _bytes(tree: Params | State) -> int:
    return sum(leaf.nbytes for leaf in leaves(tree))


def _step_peak(queue: Callable[..., None], step: FullStep, state: Carried, batches: list[Batch]) -> tuple[Carried, int]:
    """Take whole steps as a run does, with several in flight. The given state is released, as in a run."""
    if len(batches) == 1:
        given, state = state, step.carry(state.params, state.opt_state)
        given.release()
    flight = deque[object]()
    mx.synchronize()
    mx.reset_peak_memory()
    for _ in range(_STEPS):
        after, logged = _advance(step, state, batches)
        state.release()
        state = after
        queue(state.arrays, logged)
        flight.append(logged)
        if len(flight) > IN_FLIGHT:
            mx.eval(flight.popleft())
    mx.eval(state.arrays)
    return state, int(mx.get_peak_memory())


def _advance(step: FullStep, state: Carried, batches: list[Batch]) -> tuple[Carried, object]:
    """Take a step on one batch, or make one update on several batches. Return the new state and the logs."""
    if len(batches) == 1:
        return step.advance(state, batches)
    params, opt_state, logged = step.accumulated(state.params, state.opt_state, batches)
    return Carried((params, opt_state)), logged


def _gradients_peak(step: FullStep, state: Carried, batches: list[Batch]) -> tuple[Carried, int]:
    """Compute the first half of a step, again and again on the same state."""
    params, opt_state = state.params, state.opt_state
    mx.eval(params, opt_state)
    mx.synchronize()
    mx.reset_peak_memory()
    for _ in range(_STEPS // 2):
        mx.eval(step.accumulated_gradients(params, opt_state, batches))
    return state, int(mx.get_peak_memory())
