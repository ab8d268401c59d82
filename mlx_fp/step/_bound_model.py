"""The model during one step: bound to parameters and a mode, called by a loss."""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from ..core._batch_call import call_with_batch
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Loss, Params, State
from ..nn._layer import Layer
from ..nn._lift import method
from ..nn._part import part_at
from ..task._mean import Mean
from ..tree._casting import cast, is_narrow, widened
from ..tree._paths import copy_arrays
from ..tree._select import everything, nothing
from ._rows import described_rows, row_count

__all__ = ["Bound", "losses", "output", "outputs"]

_RETURNS = "a loss returns a scalar array or a Mean, alone or with a dict of further ones"

T = TypeVar("T")

tree_map_with_path = utils.tree_map_with_path


class Bound:
    """The model during one step; keeps the buffers that each call hands back, and the last output.

    It has the other methods of a lifted module, too: `forward.encode(x)`, see `nn.method`, and the named parts of a
    composition: `forward.head(x)`. In another floating type,
    inputs and weights are cast; buffers are not, and the loss gets its batch as it came. Where that type is narrow, the
    weights of `nn.wide` parts are not cast, and the loss gets the model's floating outputs in float32.
    """

    __slots__ = ("_calls", "_dtype", "_model", "_named", "_output", "params", "train")

    def __init__(self, model: Layer, params: Params, train: bool, dtype: Any) -> None:
        self._model, self._dtype = model, dtype
        self.params, self.train = params, train
        self._output: Any = None
        self._calls, self._named = 0, False

    def __call__(self, *xs: Any, **kw: Any) -> Any:
        """Run the model, in the random stream of the step."""
        return self._run(self._model, *xs, **kw)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        inside = dict(self._model.parts)
        return partial(self._run, part_at(self._model, name) if name in inside else method(self._model, name))

    def _run(self, model: Layer, *xs: Any, **kw: Any) -> Any:
        trainable = self._model.trainable
        weight, narrow = trainable.leaves(self.params), is_narrow(self._dtype)
        chosen = weight & ~(self._model.wide if narrow else nothing)
        stays = (trainable(self.params) if self._dtype is None else weight) if self.train else everything

        def taken(path: str, leaf: Array) -> Array:
            own: Array = cast(leaf, self._dtype if chosen(path, leaf) else None)
            return own

        def kept(path: str, after: Array, before: Array) -> Array:
            return before if stays(path, before) else after.astype(before.dtype)

        inside = tree_map_with_path(taken, self.params)
        xs, kw = cast(xs, self._dtype), cast(kw, self._dtype)
        result, after = model.apply.run(inside, xs, kw, self.train)  # `key` may be an argument of the model's
        result = widened(result) if narrow else result
        self.params = tree_map_with_path(kept, after, self.params)
        self._calls += 1
        if not self._named:
            self._output = result
        return result


_calling: ContextVar[Bound | None] = ContextVar("calling", default=None)
"""The model of the loss that is being called."""


def outputs(tree: T) -> T:
    """Name the outputs over which metrics fold, within a loss that calls the model several times; return them.

    A loss that calls the model once needs no word of this. Outside of a step nothing happens.

    >>> from mlx_fp import metrics, nn, optim, train_step
    >>> def loss(model, x, y):
    ...     logits = outputs(model(x))
    ...     return nn.losses.cross_entropy(logits, y, reduction="mean") + model(-x).square().mean()
    >>> step = train_step(nn.linear(2, 2), loss, optim.sgd(0.1), metrics=[metrics.accuracy()])
    >>> _, state, _ = step(*step.init(0), (mx.zeros((4, 2)), mx.zeros((4,), mx.int32)))
    >>> state["metrics"]["accuracy"]["count"].item()
    4
    """
    bound = _calling.get()
    if bound is not None:
        bound._output, bound._named = tree, True
    return tree


def output(forward: Bound) -> Any:
    """Return the outputs over which metrics fold, None if the model was not called.

    ValueError when it was called several times and the loss has not named one.
    """
    if forward._calls > 1 and not forward._named:
        raise ValueError(
            f"the loss called the model {forward._calls} times, and metrics fold over one output: name it in the loss, "
            "logits = fp.outputs(model(x))"
        )
    return forward._output


def losses(loss: Loss, forward: Bound, batch: Batch) -> tuple[State, State]:
    """Call a loss on a batch: its value, under `loss`, and its figures as scalars; and the weight of each.

    A scalar weighs as many as the batch has rows. TypeError for a result that is no scalar and no Mean, ValueError for
    a scalar where the arrays of the batch differ in their number of rows.
    """
    result = copy_context().run(_called, loss, forward, batch)
    pair = isinstance(result, tuple) and not isinstance(result, Mean) and len(result) == 2
    value, figures = result if pair else (result, {})
    if not isinstance(figures, dict):
        raise TypeError(f"{_RETURNS}; its second value is {_kind(figures)}")
    if "loss" in figures:
        raise ValueError("a loss returns figures under names of their own; 'loss' is its first value")
    logs, weights = State(), State()
    for name, given in {"loss": value, **figures}.items():
        logs[name], weights[name] = _weighed(name, given) if isinstance(given, Mean) else _scalar(name, given, batch)
    return {**logs, "loss": logs["loss"].astype(mx.float32)}, weights


def _called(loss: Loss, forward: Bound, batch: Batch) -> Any:
    """Call a loss in a context in which its model is the one whose outputs it may name."""
    _calling.set(forward)
    return call_with_batch(loss, forward, copy_arrays(batch), "loss")


def _weighed(name: str, mean: Mean) -> tuple[Array, Array]:
    """Return the value of a Mean of a loss and its weight, checked."""
    parts = [mx.array(part) if isinstance(part, (int, float)) else part for part in mean]
    for part, kind in zip(parts, Mean._fields, strict=True):
        if not isinstance(part, mx.array) or part.ndim != 0:
            raise TypeError(f"{_RETURNS}; the {kind} of {name} is {_kind(part)}: make it with fp.mean(values)")
    total, weight = (part.astype(mx.float32) for part in parts)
    return Mean(total, weight).value, weight


def _scalar(name: str, value: Any, batch: Batch) -> tuple[Array, int]:
    """Return a scalar of a loss and its weight, the number of rows."""
    if not isinstance(value, mx.array) or value.ndim != 0:
        hint = ": fp.mean() it?" if isinstance(value, mx.array) else ""
        raise TypeError(f"{_RETURNS}; {name} is {_kind(value)}{hint}")
    rows = row_count(batch)
    if rows is None:
        raise ValueError(
            f"{name} is a scalar, a mean over the rows of a batch, and the arrays of this batch differ in their number "
            f"of rows: {described_rows(batch)}; return fp.mean(values), which has a weight of its own"
        )
    return value, rows


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, mx.array) else type(value).__name__
