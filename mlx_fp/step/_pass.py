"""A pass over a batch as a value, and the join of two passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State, Tree
from ..tree._casting import widened

__all__ = ["Backward", "Pass", "Verb", "joined"]


class Pass(NamedTuple):
    """The results of a pass over a batch."""

    grads: Tree
    """The gradient of the mean loss, in a tree with a hole, an empty dict, for each parameter that does not train."""
    rest: Params
    """The parameters that do not train, and the updated buffers."""
    opt_state: State
    """The state of the step, with the next random key and the updated memory of the metrics."""
    logs: State
    """The mean loss, under `loss`, and the mean of each figure that the loss returns."""
    weights: State
    """The weight of each mean in `logs`: an array, or the number of rows."""


Backward = Callable[[Params, State, Batch], Pass]
"""A pass function: `backward(params, opt_state, batch) -> Pass`."""

Verb = Callable[[Backward], Backward]
"""A function from a pass function to another: `verb(backward) -> backward`."""


def joined(one: Pass, other: Pass) -> Pass:
    """Join two passes into the pass over the rows of both: means by weight.

    The state is that of `other`, the later pass. Gradients narrower than float32 become float32. Two kinds of arrays
    are taken from the first pass: arrays of no floating type, which are counters, and arrays that are the same object
    in both passes.

    Args:
        one: The earlier pass.
        other: The later pass.

    Returns:
        The joined pass.
    """
    share = _share(one.weights["loss"], other.weights["loss"])
    shared = one.logs.keys() & other.logs.keys()
    weights = {**one.weights, **other.weights} | {name: one.weights[name] + other.weights[name] for name in shared}
    logs = {**one.logs, **other.logs} | {
        name: _mean_of(one.logs[name], one.weights[name], other.logs[name], other.weights[name]) for name in shared
    }
    grads = utils.tree_map(lambda a, b: _mixed(a, b, share), widened(one.grads), widened(other.grads))
    rest = utils.tree_map(lambda a, b: _mixed(a, b, share), one.rest, other.rest)
    return Pass(grads, rest, other.opt_state, logs, weights)


def _share(weight: Array | int, other: Array | int) -> Array | float:
    """Return the share of the second weight in the sum; 0 where the sum is 0."""
    if not isinstance(weight, mx.array) and not isinstance(other, mx.array):
        return other / max(weight + other, 1)
    total = weight + other
    assert isinstance(total, mx.array)  # at least one of the two is an array
    share: Array = other / mx.where(total > 0, total, 1.0)
    return share


def _mixed(a: Tree, b: Tree, share: Array | float) -> Tree:
    """Return the mean of two leaves, of which the second weighs `share`."""
    if a is b or not isinstance(a, mx.array) or not mx.issubdtype(a.dtype, mx.floating):
        return a
    mixed: Array = a + (share * (b - a)).astype(a.dtype)
    return mixed


def _mean_of(a: Array, weight: Array | int, b: Array, other: Array | int) -> Array:
    """Return the mean of two means. One of them may be NaN, because no value counts in it."""
    share = _share(weight, other)
    if isinstance(weight, mx.array) or isinstance(other, mx.array):
        a = mx.where(mx.array(weight) > 0, a, b)
        b = mx.where(mx.array(other) > 0, b, a)
    mixed: Array = a * 1.0 + share * (b - a)
    return mixed
