"""Find the first part of a step that computes a number that is not finite, in the forward or the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ..compile import rng
from ..compile._recomputed import observed
from ..core._mlx import utils
from ..core._types import Array, Batch, Params, State, Tree
from ..nn._observing import Call, observed_calls
from ..tree._paths import flat
from ._bound_model import BoundModel, call_loss
from ._computation import Computation
from ._statistics import is_finite, statistics
from ._traced_lines import TracedLines
from ._train_step import TrainStep

__all__ = ["Nonfinite", "find_nonfinite"]


@dataclass(frozen=True, slots=True)
class Nonfinite:
    """The first place at which a step computes a number that is not finite. `str()` is a text of some lines.

    - `stage` is "parameters", "batch", "forward", "loss", "backward" or "update".
    - `path` is the path of the part, of the parameter, or of the column; `layer` is the name of the layer.
    - `operation` is the line of code that computed the number, or the name of the function.
    - `inputs` and `outputs` are lines of statistics, one for each array. In the backward pass the outputs of a part are
      the gradients of its inputs and of its parameters.
    """

    stage: str
    path: str
    layer: str = ""
    operation: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.stage}: {self.path or 'the model'}" + (f" ({self.layer})" if self.layer else "")
        lines = [f"{where} is the first that is not finite"]
        lines += [f"  operation: {self.operation}"] if self.operation else []
        lines += [f"  input {line}" for line in self.inputs] + [f"  output {line}" for line in self.outputs]
        return "\n".join(lines)


def find_nonfinite(step: TrainStep, params: Params, opt_state: State, batch: Batch) -> Nonfinite | None:
    """Find the first layer and operation of a step that give a number that is not finite.

    The step is computed again without compilation, with the random numbers of `opt_state`. So give the state before the
    step. `fit(debug=True)` does so where a loss is not finite. Verbs of passes (`parts`, `streams`, `through`) are left
    out. A part that gives infinite numbers on purpose, such as a mask, is found too.

    Args:
        step: A step of `train_step`.
        params: The parameters before the step.
        opt_state: The state before the step.
        batch: The batch.

    Returns:
        The place as a `Nonfinite` with `stage`, `path`, `layer`, `operation`, `inputs` and `outputs`; None where
        everything is finite.

    Raises:
        TypeError: The step is not from `train_step`.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn, optim, train_step
    >>> model = nn.sequential(body=nn.linear(2, 2), root=nn.fn(mx.sqrt))
    >>> step = train_step(model, lambda model, x: model(x).mean(), optim.sgd(0.1))
    >>> params, opt_state = step.init({"body": {"weight": -mx.ones((2, 2)), "bias": mx.zeros((2,))}, "root": {}})
    >>> print(find_nonfinite(step, params, opt_state, mx.ones((1, 2))))
    forward: root (sqrt) is the first that is not finite
      operation: sqrt
      input float32 (1, 2): from -2 to -2, mean -2
      output float32 (1, 2): 2 NaN, 0 infinite
    """
    if not isinstance(step, TrainStep):
        raise TypeError(f"find_nonfinite takes a step of fp.train_step; got {type(step).__name__}")
    work = step.computation
    for stage, tree in (("parameters", work.split(params)[0]), ("batch", batch)):
        for path, leaf in flat(tree).items():
            if not is_finite(leaf):
                return Nonfinite(stage, path, outputs=statistics(leaf))
    calls, logs = _forward(work, params, opt_state, batch)
    if not is_finite(logs):
        return _in_forward(work, params, opt_state, batch, calls, logs)
    return _in_backward(work, params, opt_state, batch, calls)


def _forward(
    work: Computation, params: Params, opt_state: State, batch: Batch, passing: Any = None
) -> tuple[list[Call], State]:
    """Compute the loss. Return the calls of parts, and the logs."""
    results: list[State] = []

    def run() -> None:
        forward = BoundModel(work.model, params, True, work.dtype, frozenset(flat(work.split(params)[0])))
        results.append(rng.run(opt_state["key"], lambda: call_loss(work.loss, forward, batch))[0][0])

    return observed_calls(run, passing), results[0]


def _in_forward(
    work: Computation, params: Params, opt_state: State, batch: Batch, calls: list[Call], logs: State
) -> Nonfinite:
    """Describe the first innermost part whose outputs are not finite, or the loss."""
    number = next(iter(_innermost(calls, [i for i, call in enumerate(calls) if not is_finite(call.outputs)])), None)
    if number is None:
        name = next(name for name, value in logs.items() if not is_finite(value))
        return Nonfinite("loss", name, "", "", statistics([call.outputs for call in calls[:1]]), statistics(logs[name]))
    lines, call = TracedLines(lambda value: not is_finite(value)), calls[number]

    def passing(current: int, kind: str, tree: Tree) -> Tree:
        if current == number:
            (lines.start if kind == "inputs" else lines.stop)()
        return tree

    with lines:
        _forward(work, params, opt_state, batch, passing)
    operation = lines.first or call.name
    return Nonfinite("forward", call.path, call.name, operation, statistics(call.inputs), statistics(call.outputs))


def _in_backward(
    work: Computation, params: Params, opt_state: State, batch: Batch, calls: list[Call]
) -> Nonfinite | None:
    """Describe the first part, from the last to the first, whose gradients are not finite; or the update."""
    gradients: dict[tuple[int, str], list[Array]] = {}

    def note(number: int, kind: str, gradient: Array) -> Array:
        gradients.setdefault((number, kind), []).append(gradient)
        return gradient

    def passing(number: int, kind: str, tree: Tree) -> Tree:
        return utils.tree_map(partial(observed, partial(note, number, kind)), tree)

    passes: list[Any] = []
    observed_calls(lambda: passes.append(work.backward(params, opt_state, batch)), passing)
    done = passes[0]
    own = [_gradients_under(call.path, done.grads) for call in calls]

    def starts_here(number: int) -> bool:
        received, passed = (gradients.get((number, kind), []) for kind in ("outputs", "inputs"))
        return is_finite(received) and not is_finite([passed, own[number]])

    number = next(reversed(_innermost(calls, list(filter(starts_here, range(len(calls)))))), None)
    if number is not None:
        call = calls[number]
        after = [gradients.get((number, "inputs"), []), own[number]]
        text = f"the gradient of {call.name}"
        return Nonfinite("backward", call.path, call.name, text, statistics(call.inputs), statistics(after))
    if not is_finite(done.grads):
        return Nonfinite("backward", "the loss function", inputs=statistics([call.outputs for call in calls[:1]]))
    return _in_update(work, params, done)


def _in_update(work: Computation, params: Params, done: Any) -> Nonfinite | None:
    """Describe the first parameter that an update with finite gradients makes other than finite."""
    updated, _ = work.update(params, done.opt_state, done.grads, done.rest)
    for path, leaf in flat(work.split(updated)[0]).items():
        if not is_finite(leaf):
            gradient = flat(done.grads)[path]
            return Nonfinite("update", path, "", work.optimizer.name, statistics(gradient), statistics(leaf))
    return None


def _gradients_under(path: str, grads: Tree) -> list[Array]:
    """List the gradients of the parameters of a part."""
    return [leaf for name, leaf in flat(grads).items() if not path or name.startswith(f"{path}.")]


def _innermost(calls: list[Call], numbers: list[int]) -> list[int]:
    """Return the numbers of the calls that have none of the other calls inside them."""

    def contains(outer: int, inner: int) -> bool:
        start = f"{calls[outer].path}." if calls[outer].path else ""
        return outer < inner and calls[inner].path != calls[outer].path and calls[inner].path.startswith(start)

    return [number for number in numbers if not any(contains(number, other) for other in numbers)]
