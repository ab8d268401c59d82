"""The evaluation step: one compiled pure function of `(params, state, batch)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._mlx import mx
from ..core._traceback import ShortTraceback
from ..core._types import Batch, Loss, Params, State
from ..core.backend import on_device
from ..nn._layer import Layer
from ..task._folds import Metric, checked, start
from ._bound_model import Bound, losses
from ._checks import check_memory, check_options, check_parts
from ._computation import fold_output
from .passes import Pass, abreast

__all__ = ["EvalStep", "eval_step"]


@dataclass(frozen=True, slots=True)
class EvalStep:
    """`step(params, state, batch) -> (state, logs)` in evaluation mode, compiled and pure; made by `eval_step`."""

    metrics: tuple[Metric, ...]
    _whole: Compiled

    def __call__(self, params: Params, state: State, batch: Batch) -> tuple[State, State]:
        """Take one batch into the metrics; `logs` holds `loss` and the figures of the loss."""
        with ShortTraceback():
            state, logs, _ = self.weighted(params, state, batch)
        return state, logs

    def weighted(self, params: Params, state: State, batch: Batch) -> tuple[State, State, State]:
        """Take one batch into the metrics; return their memory, the logs, and the weight of each of the logs."""
        result: tuple[State, State, State] = self._whole(params, state, batch)
        return result

    def init(self) -> State:
        """Return the memory of the metrics before any batch."""
        return start(self.metrics)

    @property
    def traces(self) -> int:
        """How often the step has been traced."""
        return self._whole.traces


def eval_step(
    model: Layer,
    loss: Loss,
    *,
    metrics: Sequence[Metric] = (),
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
    streams: int = 1,
) -> EvalStep:
    """Make an evaluation step of a model and a loss: no dropout, no buffer moved, and the same numbers every time.

    Options are those of `train_step`.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> step = eval_step(nn.dropout(0.5), lambda model, x: model(x).mean())
    >>> step({}, step.init(), mx.ones((4,)))[1]["loss"].item()
    1.0
    """
    check_parts(model, loss)
    check_options(compile, dtype, streams=streams)
    folds = checked(metrics)

    def plain(params: Params, opt_state: State, batch: Batch) -> Pass:
        bound = Bound(model, params, False, dtype)
        (logs, weights), _ = rng.run(0, lambda: losses(loss, bound, batch))
        memory = fold_output(folds, opt_state["metrics"], bound, batch)
        return Pass({}, {}, {**opt_state, "metrics": memory}, logs, weights)

    backward = plain if streams == 1 else abreast(streams)(plain)

    def whole(params: Params, state: State, batch: Batch) -> tuple[State, State, State]:
        check_memory([m.name for m in folds], state)
        done = backward(params, {"key": mx.array([0, 0], mx.uint32), "metrics": state}, batch)
        return done.opt_state["metrics"], done.logs, done.weights

    names, title = ("params", "state", "batch"), f"eval_step({model.name})"
    return EvalStep(folds, compiled(on_device(whole), *names, compile=compile, title=title, numpy=("batch",)))
