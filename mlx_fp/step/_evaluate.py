"""The evaluation step: one compiled pure function of `(params, state, batch)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..compile import rng
from ..compile._compiled import Compiled, compiled
from ..core._mlx import mx
from ..core._traceback import ShortTraceback
from ..core._types import Batch, Loss, Params, State
from ..core.backend import on_device
from ..nn._layer import Layer
from ..task._folds import Metric, checked, start
from ._bound_model import BoundModel, call_loss
from ._checks import check_memory, check_options, check_parts
from ._computation import fold_output
from .passes import Pass, abreast

__all__ = ["EvalStep", "eval_step"]


@dataclass(frozen=True, slots=True)
class EvalStep:
    """A compiled pure function `step(params, state, batch) -> (state, logs)`, in evaluation mode. `eval_step` makes it.

    `state` is the memory of the metrics, a dict by the names of the metrics.
    """

    metrics: tuple[Metric, ...]
    _whole: Compiled

    def __call__(self, params: Params, state: State, batch: Batch) -> tuple[State, State]:
        """Evaluate one batch.

        Args:
            params: The parameters and buffers of the model.
            state: The memory of the metrics, from `init` or from the last call.
            batch: A dict, a tuple or list, or a single array.

        Returns:
            `(state, logs)`. `logs` holds `loss` and the figures of the loss, as lazy scalar arrays.
        """
        with ShortTraceback():
            state, logs, _ = self.weighted(params, state, batch)
        return state, logs

    def weighted(self, params: Params, state: State, batch: Batch) -> tuple[State, State, State]:
        """Evaluate one batch, and return the weight of each of the logs too: `(state, logs, weights)`."""
        result: tuple[State, State, State] = self._whole(params, state, batch)
        return result

    def init(self) -> State:
        """Return the memory of the metrics before the first batch."""
        return start(self.metrics)

    @property
    def traces(self) -> int:
        """The number of traces of the step."""
        return self._whole.traces


def eval_step(
    model: Layer,
    loss: Loss,
    *,
    metrics: Sequence[Metric] = (),
    compile: bool | Mapping[str, object] = True,
    dtype: mx.Dtype | None = None,
    streams: int = 1,
) -> EvalStep:
    """Make an evaluation step of a model and a loss.

    There is no dropout, no buffer changes, and the same batch always gives the same numbers.

    Args:
        model: The Layer to evaluate.
        loss: A function of the model and a batch, as for `train_step`.
        metrics: Folds over the model's outputs, computed inside the step.
        compile: False to run the step without `mx.compile`; a mapping holds options of `mx.compile`.
        dtype: The floating type to compute in, for example `mx.bfloat16`. Parameters keep their own type.
        streams: The number of parts into which each batch is cut by rows, and which a CPU computes in parallel.

    Returns:
        An `EvalStep`. It has one trace for each shape of batches.

    Raises:
        TypeError: For a model that is no Layer, a loss that is no function, and options of a wrong type.
        ValueError: For options out of range, and for two metrics of one name.

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
        bound = BoundModel(model, params, False, dtype)
        (logs, weights), _ = rng.run(0, lambda: call_loss(loss, bound, batch))
        memory = fold_output(folds, opt_state["metrics"], bound, batch)
        return Pass({}, {}, {**opt_state, "metrics": memory}, logs, weights)

    backward = plain if streams == 1 else abreast(streams)(plain)

    def whole(params: Params, state: State, batch: Batch) -> tuple[State, State, State]:
        check_memory([m.name for m in folds], state)
        result = backward(params, {"key": mx.array([0, 0], mx.uint32), "metrics": state}, batch)
        return result.opt_state["metrics"], result.logs, result.weights

    names, title = ("params", "state", "batch"), f"eval_step({model.name})"
    return EvalStep(folds, compiled(on_device(whole), *names, compile=compile, title=title, numpy=("batch",)))
