"""Wrappers that keep a second sequence of parameters: slow weights, and averages without a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..core._mlx import mx
from ..core._options import check_options, count, number
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ..tree._casting import widened
from ..tree._paths import copy_arrays
from ._optimizer import Optimizer
from ._state import stages
from ._wrap import wrapped

__all__ = ["lookahead", "schedule_free"]

Verb: TypeAlias = Callable[[Optimizer], Optimizer]

_SMALLEST = 1e-38
"""The smallest total weight that divides: with a rate of 0 in all steps so far, the average stays."""


def lookahead(k: int, alpha: float = 0.5) -> Verb:
    """Move slow weights once in `k` updates, towards the parameters, and start the next updates from there.

    After `k` updates, `slow = slow + alpha * (parameter - slow)`, and the parameters take the value of `slow`. The
    memory of the inner optimiser goes on. See Zhang et al., Lookahead Optimizer, https://arxiv.org/abs/1907.08610.

    Args:
        k: The number of updates between two moves, 1 or more.
        alpha: The share of the way that the slow weights move, above 0 and at most 1; 0.5 by default.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer. Its state has the slow weights under `slow`, in
        float32 for 16-bit parameters, and the number of updates since the last move under `since_move`.

    Raises:
        ValueError: An option is out of its range.

    >>> from mlx_fp import optim
    >>> opt, params = lookahead(2, 0.5)(optim.sgd(1.0)), {"w": mx.array(0.0)}
    >>> state = opt.init(params)
    >>> for _ in range(2):
    ...     params, state = opt.update({"w": mx.array(-1.0)}, state, params)
    >>> params["w"].item()
    1.0
    """
    check_options("lookahead", {"k": k, "alpha": alpha}, {"k": count(1), "alpha": number(above=0, most=1)})

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"slow": _wide(params), "since_move": mx.array(0, mx.uint32), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            fast, memory = in_use().update(inner.update, grads, state["inner"], params)
            updates = state["since_move"] + 1
            moves = updates == k

            def moved(leaf: Array, slow: Array) -> Array:
                return mx.where(moves, slow + alpha * (leaf.astype(slow.dtype) - slow), slow)

            slow = in_use().elementwise(moved, fast, state["slow"])
            params = in_use().elementwise(lambda leaf, s: mx.where(moves, s.astype(leaf.dtype), leaf), fast, slow)
            return params, {"slow": slow, "since_move": mx.where(moves, 0, updates), "inner": memory}

        return wrapped("lookahead", f"{k}, {alpha:g}", inner, init, update, by_leaf=True)

    return wrap


def schedule_free(beta: float = 0.9) -> Verb:
    """Average the updated parameters, so that no learning rate must fall: `averaged(opt_state)(params)` is the result.

    The inner optimiser updates a base sequence z with gradients at y, the parameters of the model. The average x
    weights each z by the square of the learning rate, which matters while a rate rises:
    `x = (1 - c) * x + c * z` with `c = rate**2 / (sum of rate**2)`, and `y = (1 - beta) * z + beta * x`. The inner
    optimiser needs no momentum, for example `optim.adamw(1e-3, betas=[0.0, 0.999])`, and its weight decay acts on z.
    Evaluate the average with `fit(averaged=True)`. See Defazio et al., The Road Less Scheduled,
    https://arxiv.org/abs/2405.15682.

    Args:
        beta: The share of the average in the parameters, from 0 to below 1; 0.9 by default.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer. Its state has z under `base`, x under `average`,
        both in float32 for 16-bit parameters, and the sum of the weights under `total_weight`.

    Raises:
        ValueError: `beta` is out of its range.

    >>> from mlx_fp import optim
    >>> opt, params = schedule_free(0.5)(optim.sgd(1.0)), {"w": mx.array(0.0)}
    >>> state = opt.init(params)
    >>> for _ in range(2):
    ...     params, state = opt.update({"w": mx.array(-1.0)}, state, params)
    >>> state["base"]["w"].item(), optim.averaged(state)(params)["w"].item(), params["w"].item()
    (2.0, 1.5, 1.75)
    """
    check_options("schedule_free", {"beta": beta}, {"beta": number(0, below=1)})

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            base = _wide(params)
            return {"base": base, "average": _wide(params), "total_weight": mx.array(0.0), "inner": inner.init(base)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            grads = in_use().elementwise(lambda g, z: g.astype(z.dtype), grads, state["base"])
            base, memory = in_use().update(inner.update, grads, state["inner"], state["base"])
            weight = _rate(memory) ** 2
            total = state["total_weight"] + weight
            share = weight / mx.maximum(total, _SMALLEST)
            average = in_use().elementwise(lambda z, x: x + (share * (z - x)).astype(x.dtype), base, state["average"])
            params = in_use().elementwise(lambda p, z, x: (z + beta * (x - z)).astype(p.dtype), params, base, average)
            return params, {"base": base, "average": average, "total_weight": total, "inner": memory}

        return wrapped("schedule_free", f"{beta:g}", inner, init, update, by_leaf=True)

    return wrap


def _wide(params: Params) -> Params:
    """Copy parameters, 16-bit ones in float32."""
    copied: Params = copy_arrays(widened(params))
    return copied


def _rate(state: State) -> Array:
    """Return the learning rate of the first optimiser in a state that has one, or 1."""
    rates = [stage["learning_rate"] for _, stage in stages(state) if "learning_rate" in stage]
    return rates[0] if rates else mx.array(1.0)
