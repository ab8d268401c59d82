"""The model during one step: with its parameters and its mode, as a loss calls it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from ..core._batch_call import call_with_batch
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..nn._layer import Layer
from ..nn._method import method
from ..nn._observing import run_observed
from ..nn._part import part_at
from ..task._mean import Mean
from ..task._outputs import receive_outputs
from ..tree._casting import cast, is_narrow, widened
from ..tree._paths import copy_arrays
from ..tree._select import everything, nothing
from ._rows import describe_rows, row_count

__all__ = ["BoundModel", "call_loss", "last_output"]

_RETURNS = "a loss returns a scalar array or a Mean, alone or with a dict of further ones"

tree_map, tree_map_with_path = utils.tree_map, utils.tree_map_with_path


class BoundModel:
    """The model during one step. It keeps the buffers that each call returns, and the last output.

    A loss can also call the other methods of a lifted module, for example `forward.encode(x)` (see `nn.method`), and
    the named parts of a composition, for example `forward.head(x)`.

    With another floating type as `dtype`, inputs and weights are cast. Buffers are not cast, and the loss receives its
    batch unchanged. Where that type is narrow, the weights of `nn.wide` parts are not cast either, and the loss
    receives the model's floating outputs in float32.
    """

    __slots__ = ("_calls", "_dtype", "_model", "_named", "_output", "params", "train", "trained")

    def __init__(
        self,
        model: Layer,
        params: Params,
        train: bool,
        dtype: mx.Dtype | None,
        trained: frozenset[str] = frozenset(),
    ) -> None:
        self._model, self._dtype = model, dtype
        self.params, self.train = params, train
        self.trained = trained  # the paths of the parameters that get a gradient
        self._output: Tree = None
        self._calls, self._named = 0, False

    @property
    def takes(self) -> frozenset[str]:
        """The names of the inputs beside the first that the model takes by name."""
        return self._model.takes

    def __call__(self, *xs: Tree, **kw: Tree) -> Tree:
        """Call the model, in the random stream of the step."""
        return self._run(self._model, *xs, **kw)

    def __getattr__(self, name: str) -> partial[Tree]:
        if name.startswith("_"):
            raise AttributeError(name)
        parts = dict(self._model.parts)
        return partial(self._run, part_at(self._model, name) if name in parts else method(self._model, name))

    def evaluated_at(self, params: Params) -> Callable[..., Tree]:
        """Return the model on other parameters, as a function: in evaluation mode, and without gradients.

        For example, `forward.evaluated_at(without_adapters(forward.params))` is the model before its fine-tuning. The
        function keeps no buffers, and its output is not the one that metrics take.
        """

        def run(*xs: Tree, **kw: Tree) -> Tree:
            result, _ = self._call(self._model, tree_map(mx.stop_gradient, params), xs, kw, False)
            return tree_map(lambda leaf: mx.stop_gradient(leaf) if isinstance(leaf, mx.array) else leaf, result)

        return run

    def _name_outputs(self, tree: Tree) -> None:
        """Take the outputs that the loss names."""
        self._output, self._named = tree, True

    def _run(self, model: Layer, *xs: Tree, **kw: Tree) -> Tree:
        """Call the model, or a part or method of it; keep its buffers and its output."""
        trainable, train = self._model.trainable, self.train
        unchanged = everything
        if train:
            unchanged = trainable(self.params) if self._dtype is None else trainable.leaves(self.params)

        def next_leaf(path: str, after: Array, before: Array) -> Array:
            return before if unchanged(path, before) else after.astype(before.dtype)

        result, after = self._call(model, self.params, xs, kw, train)
        self.params = tree_map_with_path(next_leaf, after, self.params)
        self._calls += 1
        if not self._named:
            self._output = result
        return result

    def _call(
        self, model: Layer, params: Params, xs: tuple[Tree, ...], kw: dict[str, Tree], train: bool
    ) -> tuple[Tree, Params]:
        """Call the model, or a part or method of it, in the dtype of the step: `(output, params)`."""
        narrow = is_narrow(self._dtype)
        narrowed = self._model.trainable.leaves(params) & ~(self._model.wide if narrow else nothing)

        def cast_leaf(path: str, leaf: Array) -> Array:
            result: Array = cast(leaf, self._dtype if narrowed(path, leaf) else None)
            return result

        params = tree_map_with_path(cast_leaf, params)
        xs, kw = cast(xs, self._dtype), cast(kw, self._dtype)
        result, after = run_observed(model, "", params, xs, kw, train)
        return widened(result) if narrow else result, after


def last_output(forward: BoundModel) -> Tree:
    """Return the outputs that metrics take; None if the loss did not call the model.

    Raises:
        ValueError: The loss called the model several times and did not name an output.
    """
    if forward._calls > 1 and not forward._named:
        raise ValueError(
            f"the loss called the model {forward._calls} times, and metrics take one output: name it in the loss, "
            "logits = fp.outputs(model(x))"
        )
    return forward._output


def call_loss(loss: Loss, forward: BoundModel, batch: Batch) -> tuple[State, State]:
    """Call a loss on a batch. Return its value, under `loss`, with its figures as scalars; and the weight of each.

    The weight of a scalar is the number of rows of the batch.

    Raises:
        TypeError: A result is neither a scalar nor a Mean.
        ValueError: A result is a scalar, and the arrays of the batch differ in their number of rows.
    """
    result = copy_context().run(_call_in_context, loss, forward, batch)
    value, figures = result, State()
    if isinstance(result, tuple) and not isinstance(result, Mean) and len(result) == 2:
        value, figures = result
    if not isinstance(figures, dict):
        raise TypeError(f"{_RETURNS}; its second value is {_kind(figures)}")
    if "loss" in figures:
        raise ValueError("a loss returns figures under names of their own; 'loss' is its first value")
    logs, weights = State(), State()
    for name, figure in {"loss": value, **figures}.items():
        logs[name], weights[name] = (
            _value_and_weight(name, figure) if isinstance(figure, Mean) else _scalar_and_rows(name, figure, batch)
        )
    return {**logs, "loss": logs["loss"].astype(mx.float32)}, weights


def _call_in_context(loss: Loss, forward: BoundModel, batch: Batch) -> object:
    """Call a loss; `outputs` finds the model in the context of the call."""
    receive_outputs(forward._name_outputs)
    return call_with_batch(loss, forward, copy_arrays(batch), "loss")


def _value_and_weight(name: str, mean: Mean) -> tuple[Array, Array]:
    """Return the value and the weight of a Mean that a loss returned."""
    parts = [mx.array(part) if isinstance(part, (int, float)) else part for part in mean]
    for part, kind in zip(parts, Mean._fields, strict=True):
        if not isinstance(part, mx.array) or part.ndim != 0:
            raise TypeError(f"{_RETURNS}; the {kind} of {name} is {_kind(part)}: make it with fp.mean(values)")
    total, weight = (part.astype(mx.float32) for part in parts)
    return Mean(total, weight).value, weight


def _scalar_and_rows(name: str, value: object, batch: Batch) -> tuple[Array, int]:
    """Return a scalar that a loss returned, and its weight, the number of rows."""
    if not isinstance(value, mx.array) or value.ndim != 0:
        hint = ": fp.mean() it?" if isinstance(value, mx.array) else ""
        raise TypeError(f"{_RETURNS}; {name} is {_kind(value)}{hint}")
    rows = row_count(batch)
    if rows is None:
        raise ValueError(
            f"{name} is a scalar, a mean over the rows of a batch, and the arrays of this batch differ in their number "
            f"of rows: {describe_rows(batch)}; return fp.mean(values), which has a weight of its own"
        )
    return value, rows


def _kind(value: object) -> str:
    """Describe a value in a message by its shape or its type."""
    return f"an array of shape {value.shape}" if isinstance(value, mx.array) else type(value).__name__
