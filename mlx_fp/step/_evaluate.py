"""The evaluation step: one compiled pure function of `(params, state, batch)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._types import Batch, Loss, Params, State
from ..core.backend import on_device
from ..nn._layer import Layer
from ..task._folds import Metric, checked, fold, start
from ._bound_model import Bound, losses, output
from ._checks import check_options, check_parts
from ._parts import mean_logs, run_parts, split_batch

__all__ = ["EvalStep", "eval_step"]


@dataclass(frozen=True, slots=True)
class EvalStep:
    """`step(params, state, batch) -> (state, logs)` in evaluation mode, compiled and pure; made by `eval_step`."""

    metrics: tuple[Metric, ...]
    _whole: Compiled

    def __call__(self, params: Params, state: State, batch: Batch) -> tuple[State, State]:
        """Take one batch into the metrics; `logs` holds `loss` and what the loss reports."""
        result: tuple[State, State] = self._whole(params, state, batch)
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
    check_options(compile, dtype, streams)
    folds = checked(metrics)

    def forward(params: Params, batch: Batch) -> tuple[State, Any]:
        bound = Bound(model, params, False, dtype)
        (value, logs), _ = rng.run(0, lambda: losses(loss, bound, batch))
        return {"loss": value, **logs}, output(bound)

    def whole(params: Params, state: State, batch: Batch) -> tuple[State, State]:
        parts, shares = split_batch(batch, streams)
        logs, outputs = zip(*run_parts([partial(forward, params, part) for part in parts]), strict=True)
        return fold(folds, state, outputs, parts), mean_logs(logs, shares)

    names, title = ("params", "state", "batch"), f"eval_step({model.name})"
    return EvalStep(folds, compiled(on_device(whole), *names, compile=compile, title=title, numpy=("batch",)))
