"""Helpers for tests and benchmarks of your own code; they need no test framework to be imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .core._mlx import mx
from .core._types import Batch, Params, State
from .tree._paths import leaves

__all__ = ["Benchmark", "benchmark_step"]


class Benchmark(Protocol):
    """What is used of the fixture `benchmark` of pytest-benchmark."""

    extra_info: dict[str, Any]
    stats: Any

    def __call__(self, function: Callable[[], Any]) -> Any:
        """Time a function, as often as the fixture sees fit."""

    def pedantic(self, target: Callable[[], Any], *, rounds: int) -> Any:
        """Time a function so many times."""


def benchmark_step(
    benchmark: Benchmark,
    step: Callable[[Params, State, Batch], tuple[Params, State, Any]],
    params: Params,
    opt_state: State,
    batch: Batch,
    *,
    warm_up: int = 3,
    rounds: int | None = None,
) -> tuple[Params, State, Any]:
    """Time a step with the fixture `benchmark` of pytest-benchmark; return the last `(params, opt_state, logs)`.

    Tracing, compilation and `warm_up` calls come before the clock starts. What is timed is one call of the step and the
    evaluation of all it returned; each call starts from what the last returned, and the state before is let go, so
    MLX reuses its memory. The arrays that you hand in stay as they are, and cost their memory for as long as you keep
    them; nothing else of yours is taken over, but MLX's count of peak memory, which starts anew.

    `benchmark.extra_info` gets `steps_per_second` and `examples_per_second` of the median time, where an example is a
    row of the first array of the batch; `peak_memory_mb`; and for a step of this library `traces`, all of them since it
    was made. `rounds` is how often to time, as many as fit into the fixture's `max_time` when left out. Under
    `--benchmark-disable` the step runs once and no rates are noted. Raise ValueError for less than one call of warm-up.

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
    state = [params, opt_state, None]
    del params, opt_state  # or the first state would live as long as this call

    def run() -> None:
        state[:] = step(state[0], state[1], batch)
        mx.eval(state)

    mx.eval(state, batch)
    for _ in range(warm_up):
        run()
    mx.reset_peak_memory()
    if rounds is None:
        benchmark(run)
    else:
        benchmark.pedantic(run, rounds=rounds)
    benchmark.extra_info.update(_info(benchmark, step, batch))
    return state[0], state[1], state[2]


def _info(benchmark: Benchmark, step: Any, batch: Batch) -> dict[str, Any]:
    found: dict[str, Any] = {"peak_memory_mb": round(mx.get_peak_memory() / 1e6, 3)}
    if hasattr(step, "traces"):
        found["traces"] = step.traces
    if benchmark.stats is None:  # --benchmark-disable
        return found
    rate = 1 / benchmark.stats["median"]
    shapes = [getattr(leaf, "shape", ()) for leaf in leaves(batch)]
    examples = next((shape[0] for shape in shapes if shape), 1)
    return found | {"steps_per_second": round(rate, 3), "examples_per_second": round(rate * examples, 3)}
