"""A pass over a batch as a value, and verbs that make another pass of it: everything before the optimiser.

A pass is a function `(params, opt_state, batch) -> Pass`, a `Backward`. A verb takes one and returns another, so that
`train_step(…, through=[in_parts(4)])` chains them, the first verb nearest to the loss. In a step all of them are one
compiled function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..core._errors import is_count
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State, Tree
from ..core.backend import in_use
from ..tree._casting import widened
from ..tree._paths import leaves
from ._rows import cut_rows, split_key

__all__ = ["Backward", "Pass", "Verb", "abreast", "in_parts", "joined"]


class Pass(NamedTuple):
    """What a pass over a batch gives."""

    grads: Tree
    """The gradient of the mean loss, in a tree with holes for parameters that do not train."""
    rest: Params
    """The parameters that do not train, with buffers updated."""
    opt_state: State
    """The state of the step with the random stream and the memories of metrics moved on."""
    logs: State
    """The mean loss, under `loss`, and the means of the figures that the loss returns."""
    weights: State
    """The weight of each of these means: an array, or the number of rows."""


Backward = Callable[[Params, State, Batch], Pass]
"""`backward(params, opt_state, batch) -> Pass`."""

Verb = Callable[[Backward], Backward]
"""`verb(backward) -> backward`: another pass."""


def in_parts(count: int) -> Verb:
    """Cut each batch by rows into parts and take one after the other, with the memory of one part's activations.

    The result is that of the whole batch, to rounding, wherever the loss is a mean over rows or a `Mean`. Batch norm
    sees one part at a time.

    Args:
        count: how many parts; fewer where a part would have a single row.

    >>> from mlx_fp import nn, optim, train_step
    >>> step = train_step(nn.rms_norm(2), lambda model, x: model(x).mean(), optim.sgd(0.1), through=[in_parts(2)])
    >>> step(*step.init(0), mx.zeros((4, 2)))[2]["loss"].item()
    0.0
    """
    _check_count("in_parts", count)

    def verb(backward: Backward) -> Backward:
        def run(params: Params, opt_state: State, batch: Batch) -> Pass:
            first, *others = cut_rows(batch, count, "parts")
            done = backward(params, opt_state, first)
            for part in others:
                done = joined(done, backward(params, done.opt_state, _after(leaves(done.grads), part)))
            return done

        return run

    return verb


def abreast(count: int) -> Verb:
    """Cut each batch by rows into parts that are computed side by side, where the device has streams for it: on CPUs.

    Elsewhere the batch stays whole. The result is that of the whole batch, as for `in_parts`.

    Args:
        count: how many parts; fewer where a part would have a single row.
    """
    _check_count("abreast", count)

    def verb(backward: Backward) -> Backward:
        def run(params: Params, opt_state: State, batch: Batch) -> Pass:
            parallel = in_use().parallel
            parts = [batch] if parallel is None else cut_rows(batch, count, "streams")
            if parallel is None or len(parts) == 1:
                return backward(params, opt_state, batch)
            passes: list[Pass] = []

            def call(key: Array, part: Batch) -> Pass:
                metrics = passes[-1].opt_state["metrics"] if passes else opt_state["metrics"]
                passes.append(backward(params, {**opt_state, "key": key, "metrics": metrics}, part))
                return passes[-1]

            keys = split_key(opt_state["key"], len(parts))
            done: Pass
            done, *others = parallel([partial(call, key, part) for key, part in zip(keys, parts, strict=True)])
            for other in others:
                moved = {**done.opt_state, "metrics": other.opt_state["metrics"]}
                done = joined(done, other)._replace(opt_state=moved)
            return done

        return run

    return verb


def joined(one: Pass, other: Pass) -> Pass:
    """Return the pass over the rows of two passes: means by weight, and the state of the later one.

    Gradients narrower than float32 become float32. Arrays of no floating type, which are counters, and arrays that are
    the same object in both, are those of the first.
    """
    shares = {name: _share(one.weights[name], other.weights[name]) for name in one.weights}
    share = shares["loss"]
    weights = {name: one.weights[name] + other.weights[name] for name in one.weights}
    logs = {
        name: _mean_of(value, one.weights[name], other.logs[name], other.weights[name], shares[name])
        for name, value in one.logs.items()
    }
    grads = utils.tree_map(lambda a, b: _mixed(a, b, share), widened(one.grads), widened(other.grads))
    rest = utils.tree_map(lambda a, b: _mixed(a, b, share), one.rest, other.rest)
    return Pass(grads, rest, other.opt_state, logs, weights)


def _share(weight: Any, other: Any) -> Any:
    """Return the share of the second weight in the sum; 0 where the sum is 0."""
    if not isinstance(weight, mx.array) and not isinstance(other, mx.array):
        return other / max(weight + other, 1)
    total = weight + other
    return other / mx.where(total > 0, total, 1.0)


def _mixed(a: Any, b: Any, share: Any) -> Any:
    if a is b or not isinstance(a, mx.array) or not mx.issubdtype(a.dtype, mx.floating):
        return a
    mixed: Array = a + (share * (b - a)).astype(a.dtype)
    return mixed


def _mean_of(a: Array, weight: Any, b: Array, other: Any, share: Any) -> Array:
    """Mix two means of which one may be NaN because nothing counts in it."""
    if isinstance(weight, mx.array) or isinstance(other, mx.array):
        a = mx.where(mx.array(weight) > 0, a, b)
        b = mx.where(mx.array(other) > 0, b, a)
    mixed: Array = a * 1.0 + share * (b - a)
    return mixed


def _after(done: list[Array], batch: Batch) -> Batch:
    """Return a batch whose arrays are not read before others are computed."""
    return utils.tree_map(lambda leaf: mx.depends([leaf], done)[0] if isinstance(leaf, mx.array) else leaf, batch)


def _check_count(name: str, count: Any) -> None:
    if not is_count(count, least=1):
        raise ValueError(f"{name} takes a count of parts, 1 or more; got {count!r}")
