"""Make a training step of a model, a loss and an optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..across._world import ALONE, World
from ..compile._compiled import Compiled, compiled
from ..core._mlx import mx
from ..core._options import FLAG
from ..core._options import check_options as check_flags
from ..core._types import Loss
from ..core.backend import on_device
from ..nn._freeze import check_spec
from ..nn._layer import Layer, shapes
from ..optim._optimizer import Optimizer, require_optimizer
from ..task import _folds
from ..task._folds import Metric
from ..tree._paths import leaves
from ..tree._select import select
from ._accumulation import Accumulation
from ._across import Exchange, Prepared
from ._carried import Carrier
from ._checks import check_options, check_parts
from ._computation import Computation, split_trainable
from ._enclosing import check_order
from ._in_backward import check_update
from ._train_step import TrainStep
from .passes import Verb, abreast, in_parts

__all__ = ["train_step"]


def train_step(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    *,
    trainable: object = None,
    metrics: Sequence[Metric] = (),
    compile: bool | Mapping[str, object] = True,
    dtype: mx.Dtype | None = None,
    parts: int = 1,
    streams: int = 1,
    through: Sequence[Verb] = (),
    across: World = ALONE,
    measure: bool = False,
    update: str = "at_end",
) -> TrainStep:
    """Make a training step of a model, a loss and an optimiser.

    The loss is called with the model and the batch: as `loss(forward, **batch)` for a dict, as `loss(forward, *batch)`
    for a tuple or list, else as `loss(forward, batch)`. `forward` is the model with the parameters, the random stream
    and the mode of this step. It has the attributes `params` and `train`.

    The loss returns a scalar, which is a mean over the rows of the batch, or a `Mean`. It may return a dict of further
    scalars or Means beside it, for example `(loss, {"mae": error})`.

    Args:
        model: The Layer to train.
        loss: A function of the model and a batch.
        optimizer: The optimiser that makes updates of gradients.
        trainable: A spec of the parameters to train, among those that the model lets train. By default all of them.
        metrics: Folds over the model's outputs, computed inside the step.
        compile: False to run the step without `mx.compile`; a mapping holds options of `mx.compile`.
        dtype: The floating type to compute in, for example `mx.bfloat16`. Parameters and updates keep their own types.
        parts: The number of parts into which each batch is cut by rows. The parts are computed one after another, which
            needs less memory.
        streams: The number of parts into which each batch is cut by rows, and which a CPU computes in parallel.
        through: Verbs of `fp.passes` that change how a batch becomes gradients. The first is nearest to the loss.
        across: The processes that share each batch, see `fp.world`: each passes its own rows. By default this process
            alone.
        measure: Whether `logs` hold `grad_norm`, the norm of the gradients before clipping, and `learning_rate`.
        update: "at_end" updates all parameters when all gradients are there. "in_backward" updates each parameter as
            soon as its gradient is there, with the same results. Between parts of `nn.remat` the update then comes
            before the gradient goes on, so the gradients of one part at a time are in memory.

    Returns:
        A `TrainStep`. It has one trace for each shape of batches.

    Raises:
        TypeError: For a model that is no Layer, a loss that is no function, and options of a wrong type.
        ValueError: For options out of range, and for two metrics of one name. For `update="in_backward"` with `parts`,
            `streams`, `through`, `across` or an optimiser that needs all gradients at once, such as `clip_norm`. For
            verbs of `fp.passes` in an order that makes no sense.
        KeyError: Where `trainable` matches no parameter, unless it is a `select(spec, strict=False)`.

    >>> from mlx_fp import nn, optim
    >>> step = train_step(nn.linear(1, 1), lambda model, x, y: nn.losses.mse_loss(model(x), y), optim.sgd(0.1))
    >>> params, opt_state = step.init(0)
    >>> x = mx.array([[0.0], [1.0]])
    >>> for _ in range(200):
    ...     params, opt_state, logs = step(params, opt_state, (x, 2 * x + 1))
    >>> logs["loss"].item() < 1e-3, step.traces
    (True, 1)
    """
    check_parts(model, loss)
    require_optimizer(optimizer, "a step")
    check_options(compile, dtype, parts=parts, streams=streams)
    check_flags("train_step", {"measure": measure}, {"measure": FLAG})
    given = {"parts": parts > 1, "streams": streams > 1, "through": bool(through), "across": across.size > 1}
    check_update(update, optimizer, given)
    folds, chosen = _folds.checked(metrics), select(trainable)
    check_spec(chosen, model)
    trained, _ = split_trainable(model, chosen, shapes(model))
    parameter_bytes = sum(leaf.nbytes for leaf in leaves(trained)) if compile is not False else 0
    verbs = [verb(count) for verb, count in ((abreast, streams), (in_parts, parts)) if count > 1]
    check_order([*verbs, *through], across.size)
    divide = partial(split_trainable, model, chosen)
    work = Computation(
        model,
        loss,
        optimizer,
        folds,
        chosen,
        dtype,
        (*verbs, *through),
        measure,
        parameter_bytes,
        Exchange(across, folds, lambda params: ~model.trainable.leaves(params), divide),
        in_backward=update == "in_backward",
    )

    def build(fn: Callable[..., object], *names: str) -> Compiled:
        title = f"train_step({model.name})"
        return compiled(on_device(fn), *names, compile=compile, title=title, numpy=("batch", "batches"))

    return TrainStep(
        work,
        build(work.step, "params", "opt_state", "batch"),
        Prepared(work.exchange, build(work.sent, "params", "opt_state", "batch")),
        Carrier(work.step, lambda params: work.split(params)[0], work.parameter_bytes, build),
        build(work.gradients, "params", "opt_state", "batch"),
        build(work.update, "params", "opt_state", "grads", "rest"),
        Accumulation(
            build(work.first_pass, "params", "opt_state", "batch"),
            build(work.next_pass, "params", "before", "batch"),
            build(work.finish_pass, "done", "params", "metrics"),
            build(work.close, "params", "done", "metrics"),
        ),
    )
