"""The model during one step: bound to parameters and a mode, called by a loss."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core._mlx import mx, utils
from ..core._signature import spread
from ..core._types import Array, Batch, Loss, Params, State, Tree
from ..nn._layer import Layer
from ..nn._lift import method
from ..tree._paths import fresh
from ..tree._select import everything

__all__ = ["Bound", "losses", "output"]

_RETURNS = "a loss returns a scalar array, or (scalar, dict of scalars)"

tree_map, tree_map_with_path = utils.tree_map, utils.tree_map_with_path


class Bound:
    """The model during one step; keeps the buffers that each call hands back, and the last output.

    It has the other methods of a lifted module, too: `forward.encode(x)`, see `nn.method`. In another floating type,
    inputs and weights are narrowed; buffers are not, and the loss gets its batch as it came.
    """

    __slots__ = ("_dtype", "_model", "_output", "params", "train")

    def __init__(self, model: Layer, params: Params, train: bool, dtype: Any) -> None:
        self._model, self._dtype = model, dtype
        self.params, self.train, self._output = params, train, None

    def __call__(self, *xs: Any, **kw: Any) -> Any:
        """Run the model, in the random stream of the step."""
        return self._run(self._model, *xs, **kw)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self._run, method(self._model, name))

    def _run(self, model: Layer, *xs: Any, **kw: Any) -> Any:
        trainable = self._model.trainable
        weight = trainable.leaves(self.params)
        stays = (trainable(self.params) if self._dtype is None else weight) if self.train else everything

        def narrow(path: str, leaf: Array) -> Array:
            narrowed: Array = _cast(leaf, self._dtype if weight(path, leaf) else None)
            return narrowed

        def kept(path: str, after: Array, before: Array) -> Array:
            return before if stays(path, before) else after.astype(before.dtype)

        inside = tree_map_with_path(narrow, self.params)
        xs, kw = _cast(xs, self._dtype), _cast(kw, self._dtype)
        self._output, after = model.apply.run(inside, xs, kw, self.train)  # `key` may be an argument of the model's
        self.params = tree_map_with_path(kept, after, self.params)
        return self._output


def output(forward: Bound) -> Any:
    """Return what the model returned last, None if it was not called."""
    return forward._output


def losses(loss: Loss, forward: Bound, batch: Batch) -> tuple[Array, State]:
    """Call a loss on a batch: `(scalar, dict of what else it reports)`. TypeError for any other result."""
    result = spread(loss, forward, fresh(batch), "loss")
    value, logs = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(logs, dict):
        raise TypeError(f"{_RETURNS}; its second value is {_kind(logs)}")
    for name, scalar in [("loss", value), *logs.items()]:
        if not isinstance(scalar, mx.array) or scalar.ndim != 0:
            hint = ": mean() it?" if isinstance(scalar, mx.array) else ""
            raise TypeError(f"{_RETURNS}; {name} is {_kind(scalar)}{hint}")
    if "loss" in logs:
        raise ValueError("a loss reports scalars under names of their own; 'loss' is what it returns first")
    return value.astype(mx.float32), logs


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, mx.array) else type(value).__name__


def _cast(tree: Tree, dtype: Any) -> Tree:
    """Take a tree afresh, its floating arrays in another floating type, None being their own."""

    def narrow(leaf: Any) -> Any:
        return leaf.astype(dtype) if isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.floating) else leaf

    return fresh(tree) if dtype is None else tree_map(narrow, fresh(tree))
