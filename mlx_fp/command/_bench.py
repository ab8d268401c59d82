"""`mlx-fp bench FILE`: the rate of the compiled step of an experiment."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from statistics import quantiles
from time import perf_counter

from ..core._bytes import bytes_text
from ..core._mlx import mx
from ..core._text import table
from ..core._types import Batch
from ..core.backend import device_backend
from ..loop._plan import Plan
from ..loop._starting import first_state, make_step, with_skips
from ..loop._trainer import Trainer
from ..step._rows import example_count
from ._building import built, first_batch, planned
from ._loading import loaded_experiment
from ._values import changes_of

__all__ = ["bench_experiment"]

_WARM_UP, _FEWEST = 3, 5
"""The calls before the clock starts, and the smallest number of timed calls."""


def bench_experiment(arguments: Namespace) -> int:
    """Measure the compiled step on the first batch, and print its rate, its times and its peak memory.

    A timed call is one call of the step and the evaluation of all its results. A run queues the next call before the
    results of the last one are there, so it may be faster.

    Args:
        arguments: `target`, `changes`, `config` and `seconds` of the command line.

    Returns:
        The exit status 0.
    """
    with loaded_experiment(arguments.target) as target:
        changed = built(target, changes_of(target, arguments.changes, arguments.config))
        trainer, plan = planned(changed)
        collated = plan.collated_for(trainer.task)
        print(_measured(trainer, collated, first_batch(collated.train), arguments.seconds))
    return 0


def _measured(trainer: Trainer, plan: Plan, batch: Batch, seconds: float) -> str:
    """Return the figures of a step as a table. A call takes as many steps as in a run."""
    step, steps = make_step(with_skips(trainer, plan), plan), plan.steps_per_call
    with device_backend().tuned(step.parameter_bytes):
        state = step.carry(*first_state(step, plan))
        mx.eval(batch)

        def call() -> float:
            nonlocal state
            started = perf_counter()
            state, logged = step.advance(state, [batch] * steps)
            mx.eval(state.arrays, logged)
            return (perf_counter() - started) / steps

        first, *_ = [call() for _ in range(_WARM_UP)]
        mx.reset_peak_memory()
        times = list(_until(call, seconds))
    low, median, high = (1000 * time for time in quantiles(times, n=4, method="inclusive"))
    rows = example_count(batch)
    facts = {
        "rows of a batch": f"{rows:,}",
        "rows/s": f"{rows / median * 1000:,.0f}",
        "ms per step": f"{median:.4g}",
        "quartiles, ms": f"{low:.4g} to {high:.4g}",
        "timed steps": f"{len(times) * steps:,}",
        "first step, ms": f"{1000 * first:.4g}",
        "traces": str(step.traces),
        "peak memory": bytes_text(mx.get_peak_memory()),
        "device": str(mx.default_device()).removeprefix("Device(").removesuffix(")"),
    }
    return table(list(facts.items()), left=2)


def _until(call: Callable[[], float], seconds: float) -> Iterator[float]:
    """Yield the times of calls until so many seconds have passed, and at least a few."""
    end, number = perf_counter() + seconds, 0
    while number < _FEWEST or perf_counter() < end:
        yield call()
        number += 1
