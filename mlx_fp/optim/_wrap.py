"""Wrappers around optimisers. Each keeps its own state beside `inner`, the state of the optimiser that it wraps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from ..core._errors import is_count
from ..core._mlx import mlx_optimizers, mx, utils
from ..core._options import is_unread, text_of
from ..core._types import Array, Params, State, Tree
from ..core.backend import Update, in_use
from ._optimizer import Optimizer, require_optimizer
from ._state import finite

__all__ = ["clip_norm", "clip_value", "ema", "skip_nonfinite", "wrapped"]

Verb: TypeAlias = Callable[[Optimizer], Optimizer]
tree_map = utils.tree_map


def clip_norm(max_norm: float) -> Verb:
    """Scale gradients down to a global L2 norm of at most `max_norm`.

    The state keeps the norm before clipping: `reading("grad_norm")`. See Pascanu et al., On the difficulty of training
    recurrent neural networks, https://arxiv.org/abs/1211.5063.

    Args:
        max_norm: A number above 0; `math.inf` only measures the norm.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer.

    Raises:
        ValueError: `max_norm` is not a number above 0.

    >>> from mlx_fp import optim
    >>> opt = clip_norm(1.0)(optim.sgd(1.0))
    >>> opt
    clip_norm(1)(sgd(learning_rate=1.0))
    >>> params, state = {"w": mx.array([0.0, 0.0])}, opt.init({"w": mx.array([0.0, 0.0])})
    >>> params, state = opt.update({"w": mx.array([3.0, 4.0])}, state, params)
    >>> round(params["w"][1].item(), 4), state["grad_norm"].item()
    (-0.8, 5.0)
    """
    _check_positive("max_norm", max_norm)
    clips = is_unread(max_norm) or not math.isinf(max_norm)

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"grad_norm": mx.array(0.0), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            (grouped,), ungroup = in_use().grouped(grads)
            wide = tree_map(lambda g: g.astype(_sum_dtype(g.dtype)), grouped)  # MLX sums bfloat16 squares in bfloat16
            clipped, norm = _clipped(wide, max_norm)
            if clips:
                grads = ungroup(tree_map(lambda c, g: c.astype(g.dtype), clipped, grouped))
            params, inner_state = in_use().update(inner.update, grads, state["inner"], params)
            return params, {"grad_norm": norm.astype(mx.float32), "inner": inner_state}

        return wrapped("clip_norm", text_of(max_norm), inner, init, update)

    return wrap


def clip_value(limit: float) -> Verb:
    """Clip every element of the gradients to `[-limit, limit]`.

    Args:
        limit: A number above 0.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer.

    Raises:
        ValueError: `limit` is not a number above 0.

    >>> from mlx_fp import optim
    >>> opt, params = clip_value(0.5)(optim.sgd(1.0)), {"w": mx.array([0.0, 0.0])}
    >>> opt.update({"w": mx.array([3.0, -0.25])}, opt.init(params), params)[0]["w"].tolist()
    [-0.5, 0.25]
    """
    _check_positive("limit", limit)

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            clipped = in_use().elementwise(lambda g: mx.clip(g, -limit, limit).astype(g.dtype), grads)
            params, inner_state = in_use().update(inner.update, clipped, state["inner"], params)
            return params, {"inner": inner_state}

        return wrapped("clip_value", text_of(limit), inner, init, update, by_leaf=True)

    return wrap


def skip_nonfinite(*, limit: int | None = None) -> Verb:
    """Skip a step whose gradient or update is not finite: parameters, memory and buffers stay as they are.

    The update is checked too, because a finite but huge gradient may overflow the memory of the optimiser. The state
    counts `skipped` steps of the run and skipped steps `in_a_row`: `reading("skipped")`.

    Args:
        limit: After this many skipped steps in a row the next step is taken, so that a diverged run ends visibly. None,
            the default, is no limit.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer.

    Raises:
        ValueError: `limit` is not an int of 1 or more, or None.

    >>> from mlx_fp import optim
    >>> opt, params = skip_nonfinite()(optim.sgd(1.0)), {"w": mx.array(2.0)}
    >>> params, state = opt.update({"w": mx.array(mx.nan)}, opt.init(params), params)
    >>> params["w"].item(), optim.reading("skipped")(state).item()
    (2.0, 1)
    """
    if limit is not None and not is_count(limit, least=1):
        raise ValueError(f"limit is a count of steps, 1 or more, or None; got {limit!r}")

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            zero = mx.array(0, mx.uint32)
            return {"skipped": zero, "in_a_row": mx.array(0, mx.uint32), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            updated, inner_state = in_use().update(inner.update, grads, state["inner"], params)
            all_finite = finite(grads) & finite(updated) & finite(inner_state)
            taken = all_finite if limit is None else all_finite | (state["in_a_row"] >= limit)
            state = {
                "skipped": state["skipped"] + (~taken).astype(mx.uint32),
                "in_a_row": mx.where(taken, mx.array(0, mx.uint32), state["in_a_row"] + 1),
                "inner": _where(taken, inner_state, state["inner"]),
            }
            return _where(taken, updated, params), state

        return wrapped("skip_nonfinite", "" if limit is None else f"{limit}", inner, init, update)

    return wrap


def ema(decay: float) -> Verb:
    """Keep an exponential moving average of the parameters in the state, in float32: `averaged(opt_state)(params)`.

    The average starts at the first parameters. After each update it is
    `average = decay * average + (1 - decay) * parameter`. See Polyak and Juditsky, Acceleration of stochastic
    approximation by averaging, https://doi.org/10.1137/0330046.

    Args:
        decay: A number from 0 to below 1, for example 0.999.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer.

    Raises:
        ValueError: `decay` is out of its range.

    >>> from mlx_fp import optim
    >>> opt, params = ema(0.5)(optim.sgd(1.0)), {"w": mx.array(0.0)}
    >>> params, state = opt.update({"w": mx.array(-4.0)}, opt.init(params), params)
    >>> params["w"].item(), optim.averaged(state)(params)["w"].item()
    (4.0, 2.0)
    """
    if not is_unread(decay) and (not isinstance(decay, (int, float)) or not 0 <= decay < 1):
        raise ValueError(f"decay is a number in [0, 1); got {decay!r}")

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            average = tree_map(lambda p: mx.array(p, _sum_dtype(p.dtype)), params)
            return {"average": average, "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            params, inner_state = in_use().update(inner.update, grads, state["inner"], params)
            average = in_use().elementwise(
                lambda p, a: decay * a + (1 - decay) * p.astype(a.dtype), params, state["average"]
            )
            return params, {"average": average, "inner": inner_state}

        return wrapped("ema", text_of(decay), inner, init, update, by_leaf=True)

    return wrap


def wrapped(
    verb: str,
    option: str,
    inner: object,
    init: Callable[[Params], State],
    update: Update,
    *,
    by_leaf: bool = False,
) -> Optimizer:
    """Make the wrapper of an Optimizer, with its name; raise TypeError for any other value.

    `by_leaf` says that the wrapper itself needs one gradient at a time.
    """
    optimizer = require_optimizer(inner, verb)
    name, label = f"{verb}({option})({optimizer.name})", f"{verb}({option})({optimizer!r})"
    return Optimizer(init, update, name, label, by_leaf and optimizer.by_leaf)


def _clipped(grads: Tree, max_norm: float | Array) -> tuple[Tree, Array]:
    """Return clipped gradients and their norm; MLX's function reads `max_norm`, which may be an array of a trace."""
    clipped: tuple[Tree, Array]
    if not is_unread(max_norm):
        clipped = mlx_optimizers.clip_grad_norm(grads, max_norm)
        return clipped
    grads, norm = mlx_optimizers.clip_grad_norm(grads, math.inf)
    scale = mx.minimum(max_norm / (norm + 1e-6), 1.0)
    return tree_map(lambda g: g * scale, grads), norm


def _where(condition: Array, yes: Tree, no: Tree) -> Tree:
    return in_use().elementwise(lambda a, b: mx.where(condition, a, b).astype(b.dtype), yes, no)


def _sum_dtype(dtype: mx.Dtype) -> mx.Dtype:
    """Return float32 for the two 16-bit dtypes, and any other dtype unchanged."""
    return mx.float32 if dtype in (mx.float16, mx.bfloat16) else dtype


def _check_positive(name: str, value: float) -> None:
    if is_unread(value):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name} is a number above 0; got {value!r}")
