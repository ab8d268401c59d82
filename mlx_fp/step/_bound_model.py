"""The model during one step: bound to parameters and a mode, called by a loss."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core._mlx import mx, utils
from ..core._signature import spread
from ..core._types import Array, Batch, Loss, Params, State
from ..nn._layer import Layer
from ..nn._lift import method
from ..tree._casting import cast, is_narrow, widened
from ..tree._paths import fresh
from ..tree._select import everything, nothing

__all__ = ["Bound", "losses", "output"]

_RETURNS = "a loss returns a scalar array, or (scalar, dict of scalars)"

tree_map_with_path = utils.tree_map_with_path


class Bound:
    """The model during one step; keeps the buffers that each call hands back, and the last output.

    It has the other methods of a lifted module, too: `forward.encode(x)`, see `nn.method`. In another floating type,
    inputs and weights are cast; buffers are not, and the loss gets its batch as it came. Where that type is narrow, the
    weights of `nn.wide` parts are not cast, and the loss gets the model's floating outputs in float32.
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
        y, after = model.apply.run(inside, xs, kw, self.train)  # `key` may be an argument of the model's
        self._output = widened(y) if narrow else y
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
