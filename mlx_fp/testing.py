"""Helpers for tests and benchmarks of your own code. Their import needs no test framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from .core._mlx import mx
from .core._types import Batch, Params, State, Tree
from .tree._paths import leaves

__all__ = ["Benchmark", "benchmark_step"]


Logs = TypeVar("Logs")


class Benchmark(Protocol):
    """The used part of the fixture `benchmark` of pytest-benchmark."""

    extra_info: dict[str, object]
    """Further figures that pytest-benchmark stores beside the times."""

    @property
    def stats(self) -> Mapping[str, float] | None:
        """The statistics of the times, in seconds; None under `--benchmark-disable`."""

    def __call__(self, function: Callable[[], object]) -> object:
        """Time a function; the fixture decides how often it calls the function.

        Args:
            function: The function to time.
        """

    def pedantic(self, target: Callable[[], object], *, rounds: int) -> object:
        """Time a function a given number of times.

        Args:
            target: The function to time.
            rounds: The number of timed calls.
        """


def benchmark_step(
    benchmark: Benchmark,
    step: Callable[[Params, State, Batch], tuple[Params, State, Logs]],
    params: Params,
    opt_state: State,
    batch: Batch,
    *,
    warm_up: int = 3,
    rounds: int | None = None,
) -> tuple[Params, State, Logs]:
    """Time a step with the fixture `benchmark` of pytest-benchmark.

    A timed call is one call of the step and the evaluation of all its results. Tracing and compilation happen before
    the clock starts. Each call starts from the results of the last call. The state before is released, so MLX reuses
    its memory. Your arrays stay as they are, and need their memory as long as you keep them. The function resets MLX's
    peak memory.

    `benchmark.extra_info` receives `steps_per_second` and `examples_per_second` of the median time, and
    `peak_memory_mb` in megabytes. An example is a row of the first array of the batch. For a step of this library it
    receives `traces`, the number of traces since the step was made. Under `--benchmark-disable` the step runs once
    after the warm-up, and there are no rates.

    Args:
        benchmark: The fixture of pytest-benchmark.
        step: A function `step(params, opt_state, batch) -> (params, opt_state, logs)`, for example a `train_step`.
        params: The parameters before the first call.
        opt_state: The state before the first call.
        batch: The batch of every call.
        warm_up: The number of calls before the clock starts, 1 or more.
        rounds: The number of timed calls. By default as many as fit into the `max_time` of the fixture.

    Returns:
        The last `(params, opt_state, logs)`.

    Raises:
        ValueError: `warm_up` is less than 1.

    >>> from mlx_fp import nn, optim, train_step
    >>> step = train_step(nn.linear(3, 1), lambda model, x: model(x).square().mean(), optim.sgd(0.1))
    >>> class Once:  # stands for the fixture
    ...     stats, extra_info = None, {}
    ...     def __call__(self, function):
    ...         return function()
    >>> params, opt_state, logs = benchmark_step(Once(), step, *step.init(0), mx.ones((8, 3)))
    >>> Once.extra_info["traces"]
    1
    """
    if warm_up < 1:
        raise ValueError(f"warm_up is 1 at least, for the call that compiles; got {warm_up}")
    results: list[Tree] = [params, opt_state, None]
    del params, opt_state  # these names would keep the first state in memory during the call

    def run() -> None:
        results[:] = step(results[0], results[1], batch)
        mx.eval(results)

    mx.eval(results, batch)
    for _ in range(warm_up):
        run()
    mx.reset_peak_memory()
    if rounds is None:
        benchmark(run)
    else:
        benchmark.pedantic(run, rounds=rounds)
    benchmark.extra_info.update(_figures(benchmark, step, batch))
    return results[0], results[1], results[2]


def _figures(benchmark: Benchmark, step: object, batch: Batch) -> dict[str, object]:
    """Return peak memory, traces and rates for `extra_info`."""
    figures: dict[str, object] = {"peak_memory_mb": round(mx.get_peak_memory() / 1e6, 3)}
    if hasattr(step, "traces"):
        figures["traces"] = step.traces
    if benchmark.stats is None:  # --benchmark-disable
        return figures
    rate = 1 / benchmark.stats["median"]
    shapes = [getattr(leaf, "shape", ()) for leaf in leaves(batch)]
    examples = next((shape[0] for shape in shapes if shape), 1)
    return figures | {"steps_per_second": round(rate, 3), "examples_per_second": round(rate * examples, 3)}
