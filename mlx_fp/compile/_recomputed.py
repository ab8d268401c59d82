"""Compute a function, drop its intermediate arrays, and compute it again where its gradient is computed.

The order is a property of the graph. The arrays that the second computation reads depend on the cotangent, so it does
not start before the gradient reaches the function. The gradient of the inputs depends on the gradients of the
parameters, so these are computed, and the intermediate arrays are freed, before the gradient goes on. Hence the
intermediate arrays of one function at a time are in memory. `mx.checkpoint` has no such order.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from ..core._exporting import custom_function
from ..core._mlx import mx, utils
from ..core._types import Array, Tree
from ..core.backend import in_use
from . import rng

__all__ = ["awaited", "awaiting", "observed", "recomputed"]

T = TypeVar("T")

tree_map = utils.tree_map

_awaited: ContextVar[list[Array]] = ContextVar("awaited")


def recomputed(fn: Callable[..., T], params: Tree, *trees: Tree) -> T:
    """Call `fn(params, *trees)`, and compute it again for its gradient, with the same random numbers.

    The random stream continues from the key at which the first computation ended. Arrays without a floating dtype have
    no gradient. An array that `fn` closes over has no gradient either.

    Args:
        fn: A function of trees. A result is a tree.
        params: The tree whose gradients are computed before the gradient of `trees` goes on.
        trees: The further arguments.

    Returns:
        The result of `fn`.

    >>> loss = lambda w: recomputed(lambda w, x: (w * x).sum(), w, mx.array([1.0, 2.0]))
    >>> mx.grad(loss)(mx.array([3.0, 4.0])).tolist()
    [1.0, 2.0]
    """
    computed: list[Array] = []
    """The gradients of `params` that somebody asks for. MLX asks for them before those of `trees`, see `_call`."""

    def note(gradient: Array) -> Array:
        computed.append(gradient)
        return gradient

    others = _awaited.get(list[Array]())

    def after_params(gradient: Array) -> Array:
        before = [*computed, *others]
        others.clear()
        return mx.depends([gradient], before)[0] if before else gradient

    arguments = tree_map(partial(observed, after_params), trees), tree_map(partial(observed, note), params)
    return _call(lambda trees, params: fn(params, *trees), arguments)


def awaited(arrays: list[Array]) -> None:
    """Let the gradient that goes on from the next recomputed part wait for further arrays, within `awaiting`."""
    if (others := _awaited.get(None)) is not None:
        others.extend(arrays)


def awaiting(fn: Callable[[], T]) -> T:
    """Call a function within which `awaited` has an effect."""

    def call() -> T:
        _awaited.set([])
        return fn()

    return copy_context().run(call)


def observed(observe: Callable[[Array], Array], leaf: Tree) -> Tree:
    """Return the same array; `observe` gets its gradient, if one is computed, and returns the gradient that goes on."""
    if not _is_floating(leaf):
        return leaf
    identity = custom_function(lambda arrays: list(arrays), lambda _, cotangents, outputs: [observe(cotangents[0])])
    return identity([leaf])[0]


def _call(fn: Callable[..., T], arguments: tuple[Tree, ...]) -> T:
    """Call a function of trees as a function of its floating arrays, which has the derivative of this file.

    MLX walks the graph back from the last argument to the first, so the parameters come last.
    """
    start = mx.stop_gradient(rng.position())
    arrays = _arrays(arguments)
    is_floating = [_is_floating(array) for array in arrays]
    floats = [array for array, floating in zip(arrays, is_floating, strict=True) if floating]
    others = [array for array, floating in zip(arrays, is_floating, strict=True) if not floating]
    if not floats:
        return fn(*arguments)
    throttled, nbytes = in_use().throttled, sum(array.nbytes for array in floats)

    def call(floats: list[Array], others: list[Array], start: Array) -> tuple[T, Array]:
        sources = iter(floats), iter(others)
        filled = _filled(arguments, [next(sources[0] if floating else sources[1]) for floating in is_floating])
        return rng.run(start, lambda: fn(*filled))

    results: list[tuple[T, Array]] = []

    def first(floats: list[Array]) -> list[Array]:
        results.append(call(floats, others, start))
        return throttled(_arrays(results[0]), nbytes)

    def again(floats: list[Array], others: list[Array], start: Array) -> list[Array]:
        return [array for array in _arrays(call(floats, others, start)) if _is_floating(array)]

    def derivative(floats: list[Array], cotangents: list[Array], outputs: list[Array]) -> list[Array]:
        cotangents = [ct for ct, array in zip(cotangents, outputs, strict=True) if _is_floating(array)]
        later = mx.depends([*floats, *others, start], throttled(cotangents, nbytes))
        floats, others_later, key = later[: len(floats)], later[len(floats) : -1], mx.stop_gradient(later[-1])
        return mx.vjp(lambda *floats: again(list(floats), others_later, key), floats, cotangents)[1]

    outputs = custom_function(first, derivative)(floats)
    value, after = _filled(results[0], outputs)
    if results[0][1] is not start:
        rng.move_to(mx.stop_gradient(after))
    result: T = value
    return result


def _is_floating(leaf: Tree) -> bool:
    return isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.inexact)


def _arrays(tree: Tree) -> list[Array]:
    """List the arrays of a tree, in the order of `_filled`."""
    arrays: list[Array] = []
    tree_map(lambda leaf: arrays.append(leaf) if isinstance(leaf, mx.array) else None, tree)
    return arrays


def _filled(tree: Tree, arrays: list[Array]) -> Any:
    """Return a tree with other arrays in place of its own."""
    remaining = iter(arrays)
    return tree_map(lambda leaf: next(remaining) if isinstance(leaf, mx.array) else leaf, tree)
