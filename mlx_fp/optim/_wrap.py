"""Optimisers around optimisers. Each keeps its own state beside `inner`, that of the optimiser it wraps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core._errors import is_count
from ..core._mlx import mlx_optimizers, mx, utils
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ._optimizer import Optimizer, checked
from ._state import finite

__all__ = ["clip_norm", "clip_value", "ema", "skip_nonfinite"]

Verb = Callable[[Optimizer], Optimizer]
tree_map = utils.tree_map


def clip_norm(max_norm: float) -> Verb:
    """Scale gradients down to a global L2 norm of at most `max_norm`; `math.inf` only measures.

    The norm before clipping is kept in the state: `reading("grad_norm")`. See Pascanu et al., On the difficulty of
    training recurrent neural networks, https://arxiv.org/abs/1211.5063.

    >>> from mlx_fp import optim
    >>> opt = clip_norm(1.0)(optim.sgd(1.0))
    >>> params, state = {"w": mx.array([0.0, 0.0])}, opt.init({"w": mx.array([0.0, 0.0])})
    >>> params, state = opt.update({"w": mx.array([3.0, 4.0])}, state, params)
    >>> round(params["w"][1].item(), 4), state["grad_norm"].item()
    (-0.8, 5.0)
    """
    _positive("max_norm", max_norm)

    def wrapped(inner: Optimizer) -> Optimizer:
        checked(inner, "clip_norm")

        def init(params: Params) -> State:
            return {"grad_norm": mx.array(0.0), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            (own,), ungroup = in_use().grouped(grads)
            wide = tree_map(lambda g: g.astype(_wide(g.dtype)), own)  # MLX sums bfloat16 squares in bfloat16
            clipped, norm = mlx_optimizers.clip_grad_norm(wide, max_norm)
            if not math.isinf(max_norm):
                grads = ungroup(tree_map(lambda c, g: c.astype(g.dtype), clipped, own))
            params, memory = in_use().update(inner.update, grads, state["inner"], params)
            return params, {"grad_norm": norm.astype(mx.float32), "inner": memory}

        return Optimizer(init, update, f"clip_norm({max_norm:g})({inner.name})")

    return wrapped


def clip_value(limit: float) -> Verb:
    """Clip every element of the gradients to `[-limit, limit]`."""
    _positive("limit", limit)

    def wrapped(inner: Optimizer) -> Optimizer:
        checked(inner, "clip_value")

        def init(params: Params) -> State:
            return {"inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            clipped = in_use().elementwise(lambda g: mx.clip(g, -limit, limit).astype(g.dtype), grads)
            params, memory = in_use().update(inner.update, clipped, state["inner"], params)
            return params, {"inner": memory}

        return Optimizer(init, update, f"clip_value({limit:g})({inner.name})")

    return wrapped


def skip_nonfinite(*, limit: int | None = None) -> Verb:
    """Leave parameters, memory and buffers as they are when a gradient or an update is not finite, and count it.

    A gradient that is finite and huge may overflow the memory of the optimiser, so what the update makes is judged too.

    After `limit` such steps in a row the next one goes through, so that a run that is lost ends visibly; None never
    gives up. The state counts `skipped`, over the run, and `in_a_row`: `reading("skipped")`.
    """
    if limit is not None and not is_count(limit, least=1):
        raise ValueError(f"limit is a count of steps, 1 or more, or None; got {limit!r}")

    def wrapped(inner: Optimizer) -> Optimizer:
        checked(inner, "skip_nonfinite")

        def init(params: Params) -> State:
            none = mx.array(0, mx.uint32)
            return {"skipped": none, "in_a_row": mx.array(0, mx.uint32), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            updated, memory = in_use().update(inner.update, grads, state["inner"], params)
            sound = finite(grads) & finite(updated) & finite(memory)
            goes = sound if limit is None else sound | (state["in_a_row"] >= limit)
            state = {
                "skipped": state["skipped"] + (~goes).astype(mx.uint32),
                "in_a_row": mx.where(goes, mx.array(0, mx.uint32), state["in_a_row"] + 1),
                "inner": _chosen(goes, memory, state["inner"]),
            }
            return _chosen(goes, updated, params), state

        return Optimizer(init, update, f"skip_nonfinite({'' if limit is None else limit})({inner.name})")

    return wrapped


def ema(decay: float) -> Verb:
    """Keep an exponential moving average of the parameters beside them, float32: `averaged(opt_state)(params)`.

    After each update `average = decay * average + (1 - decay) * parameter`, from the parameters at the start. See
    Polyak and Juditsky, Acceleration of stochastic approximation by averaging, https://doi.org/10.1137/0330046.
    """
    if not isinstance(decay, (int, float)) or not 0 <= decay < 1:
        raise ValueError(f"decay is a number in [0, 1); got {decay!r}")

    def wrapped(inner: Optimizer) -> Optimizer:
        checked(inner, "ema")

        def init(params: Params) -> State:
            return {"average": tree_map(lambda p: mx.array(p, _wide(p.dtype)), params), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            params, memory = in_use().update(inner.update, grads, state["inner"], params)
            average = in_use().elementwise(
                lambda p, a: decay * a + (1 - decay) * p.astype(a.dtype), params, state["average"]
            )
            return params, {"average": average, "inner": memory}

        return Optimizer(init, update, f"ema({decay:g})({inner.name})")

    return wrapped


def _chosen(condition: Array, yes: Tree, no: Tree) -> Tree:
    return in_use().elementwise(lambda a, b: mx.where(condition, a, b).astype(b.dtype), yes, no)


def _wide(dtype: Any) -> Any:
    """float32 for the two halves, the dtype itself otherwise."""
    return mx.float32 if dtype in (mx.float16, mx.bfloat16) else dtype


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name} is a number above 0; got {value!r}")
