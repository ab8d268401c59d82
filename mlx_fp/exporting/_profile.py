"""Measure the time of each operation of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from ..core._mlx import mx
from ..core._text import dtype_name
from ..core._types import Array, Batch, Params, State
from ..step._evaluate import EvalStep
from ..step._protocol import Step
from ..tree._conversion import as_arrays
from ._graph import Value
from ._graph_parts import graph_with_parts
from ._profile_record import OTHERS, OUTSIDE, Profile, TimedCall, rows_of
from ._replay import Timed, replayed, seconds_of
from ._traced import Arguments, Flat, flat_function

__all__ = ["profile"]

_NAME, _PART = attrgetter("name"), attrgetter("part")


def profile(step: Step, params: Params, opt_state: State, batch: Batch, *, repeats: int = 5) -> Profile:
    """Measure the time of each operation of a training step, forward, backward and update.

    The graph of the uncompiled step is computed one operation after another, each several times on the true values, and
    the median counts. Small operations are computed up to 16 times at once, so that waiting for the device counts
    little. The shares are those of plain operations: compilation fuses operations, and custom derivatives of the
    library are replaced with those of MLX. So the whole step is measured, too, compiled and uncompiled. Operations that
    MLX has no public function for are together in the row `others`, with the rest of the time of the uncompiled step.
    Other programs that compute at the same time change the figures.

    Args:
        step: A training step.
        params: The parameters; they stay as they are.
        opt_state: The state of the step.
        batch: The batch.
        repeats: The number of times that each operation is measured; more give steadier figures.

    Returns:
        A `Profile` with `rows`, `parts`, `calls`, `milliseconds`, `plain`, `compiled`, and `save(path)` for a trace of
        Chrome.

    Raises:
        TypeError: The step is no training step.
        ValueError: `repeats` is below 1, or MLX cannot give the graph: it contains an `mx.custom_function` or
            `mx.checkpoint` of the user, or an operation whose options MLX does not give, such as `mx.logcumsumexp`.

    >>> from mlx_fp import nn, optim, train_step
    >>> step = train_step(nn.linear(256, 256), lambda model, x: model(x).square().mean(), optim.sgd(0.1))
    >>> found = profile(step, *step.init(0), mx.ones((128, 256)))
    >>> sum(row.share for row in found.rows) > 0.999, found.others
    (True, ())
    """
    if not isinstance(step, Step) or isinstance(step, EvalStep):
        raise TypeError(f"profile takes a training step, such as fp.train_step makes; got {type(step).__name__}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"repeats is an int of 1 or more; got {repeats!r}")
    batch = as_arrays(batch)
    arguments: Arguments = (params, opt_state, batch), {}
    function = flat_function(step, arguments)
    arrays = function.arrays(arguments, "the call")
    compiled = 1e3 * seconds_of(lambda _: mx.eval(step(params, opt_state, batch)), repeats)
    plain = 1e3 * seconds_of(mx.eval, repeats, lambda: function(*arrays))
    return _profile(function, arrays, plain, compiled, repeats)


def _profile(function: Flat, arrays: Sequence[Array], plain: float, compiled: float, repeats: int) -> Profile:
    """Measure the operations of a function, and join them with the times of the whole."""
    calls, others = list[TimedCall](), list[str]()
    graph, parts = graph_with_parts(function, arrays)
    for timed, part in zip(replayed(graph, arrays, repeats), parts, strict=True):
        if timed.seconds is None:
            others.append(timed.node.primitive)
        else:
            calls.append(_timed_call(timed, timed.seconds, part or OUTSIDE))
    if others:
        rest = max(0.0, plain - sum(call.milliseconds for call in calls))
        calls.append(TimedCall(OTHERS, OTHERS, rest, (), ()))
    counts = {OTHERS: len(others)}
    rows, by_part = (
        rows_of((name(call), counts.get(call.name, 1), call.milliseconds) for call in calls) for name in (_NAME, _PART)
    )
    return Profile(rows, by_part, tuple(calls), plain, compiled, tuple(dict.fromkeys(others)), str(mx.default_device()))


def _timed_call(timed: Timed, seconds: float, part: str) -> TimedCall:
    inputs, outputs = map(_kinds, (timed.node.inputs, timed.node.outputs))
    return TimedCall(timed.node.primitive, part, 1e3 * seconds, inputs, outputs)


def _kinds(values: Sequence[Value]) -> tuple[str, ...]:
    return tuple(f"{dtype_name(value.dtype)} {value.shape}" for value in values)
