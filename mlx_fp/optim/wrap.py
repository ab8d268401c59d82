"""Optimisers around optimisers. Each keeps its own state beside `inner`, that of the optimiser it wraps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from mlx.optimizers import clip_grad_norm

from ..door import mx, utils
from ..tree import leaves, merge, partition, paths
from ..types import Array, Params, State, Tree
from .optimizer import Optimizer

__all__ = ["accumulate", "averaged", "clip_norm", "clip_value", "ema", "reading", "skip_nonfinite"]

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
        def init(params: Params) -> State:
            return {"grad_norm": mx.array(0.0), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            wide = tree_map(lambda g: g.astype(_wide(g.dtype)), grads)  # MLX sums bfloat16 squares in bfloat16
            clipped, norm = clip_grad_norm(wide, max_norm)
            clipped = tree_map(lambda c, g: c.astype(g.dtype), clipped, grads)
            params, memory = inner.update(grads if math.isinf(max_norm) else clipped, state["inner"], params)
            return params, {"grad_norm": norm.astype(mx.float32), "inner": memory}

        return Optimizer(init, update, f"clip_norm({max_norm:g})({inner.name})")

    return wrapped


def clip_value(limit: float) -> Verb:
    """Clip every element of the gradients to `[-limit, limit]`."""
    _positive("limit", limit)

    def wrapped(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            clipped = tree_map(lambda g: mx.clip(g, -limit, limit).astype(g.dtype), grads)
            params, memory = inner.update(clipped, state["inner"], params)
            return params, {"inner": memory}

        return Optimizer(init, update, f"clip_value({limit:g})({inner.name})")

    return wrapped


def accumulate(count: int) -> Verb:
    """Update once every `count` steps, on the mean of their gradients: one step on a batch `count` times larger.

    Holds one tree of gradients, float32 for narrower parameters. What the inner optimiser would do is computed, and
    dropped, on the steps between, so that every step is the same trace.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"accumulate takes a count of steps, 1 or more; got {count!r}")

    def wrapped(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"count": mx.array(0, mx.uint32), "grads": _zeros(params), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            seen = state["count"] + 1
            due = seen == count
            total = tree_map(lambda g, sum: sum + g.astype(sum.dtype), grads, state["grads"])
            mean = tree_map(lambda g, sum: (sum / count).astype(g.dtype), grads, total)
            updated, memory = inner.update(mean, state["inner"], params)
            held = tree_map(lambda sum: mx.where(due, mx.zeros_like(sum), sum), total)
            state = {
                "count": mx.where(due, mx.array(0, mx.uint32), seen),
                "grads": held,
                "inner": _chosen(due, memory, state["inner"]),
            }
            return _chosen(due, updated, params), state

        return Optimizer(init, update, f"accumulate({count})({inner.name})")

    return wrapped


def skip_nonfinite(*, limit: int | None = None) -> Verb:
    """Leave parameters, memory and buffers as they are when a gradient holds a NaN or an infinity, and count it.

    After `limit` such steps in a row the next one goes through, so that a run that is lost ends visibly; None never
    gives up. The state counts `skipped`, over the run, and `in_a_row`: `reading("skipped")`.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit is a count of steps, 1 or more, or None; got {limit!r}")

    def wrapped(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            none = mx.array(0, mx.uint32)
            return {"skipped": none, "in_a_row": mx.array(0, mx.uint32), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            sound = finite(grads)
            goes = sound if limit is None else sound | (state["in_a_row"] >= limit)
            updated, memory = inner.update(grads, state["inner"], params)
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
    Polyak and Juditsky, Acceleration of stochastic approximation by averaging, https://doi.org/10.1137/0330046. Around
    `accumulate` it averages every step, inside it every update.
    """
    if not isinstance(decay, (int, float)) or not 0 <= decay < 1:
        raise ValueError(f"decay is a number in [0, 1); got {decay!r}")

    def wrapped(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"average": tree_map(lambda p: mx.array(p, _wide(p.dtype)), params), "inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            params, memory = inner.update(grads, state["inner"], params)
            average = tree_map(lambda p, a: decay * a + (1 - decay) * p.astype(a.dtype), params, state["average"])
            return params, {"average": average, "inner": memory}

        return Optimizer(init, update, f"ema({decay:g})({inner.name})")

    return wrapped


def averaged(opt_state: State) -> Callable[[Params], Params]:
    """Put the averages that `ema` keeps in the place of the parameters, in their dtypes. KeyError without `ema`."""
    average = reading("average")(opt_state)
    held = set(paths()(average))

    def replaced(params: Params) -> Params:
        _, rest = partition(lambda path: path in held)(params)
        return tree_map(lambda leaf, before: leaf.astype(before.dtype), merge(average, rest), params)

    return replaced


def reading(name: str) -> Callable[[State], Any]:
    """Find what a wrapper keeps under `name` in an optimiser's state, the outermost first: `grad_norm`, `skipped`, …

    Takes the state of a step or of an optimiser. KeyError, naming what there is, when no wrapper keeps it.
    """

    def find(opt_state: State) -> Any:
        chain = list(_chain(opt_state))
        for state in chain:
            if name in state:
                return state[name]
        kept = sorted({key for state in chain for key in state} - {"inner", "memory", "optimizer", "groups"})
        raise KeyError(f"no wrapper of this optimiser keeps {name!r}; kept: {', '.join(kept)}")

    return find


def finite(tree: Tree) -> Array:
    """Tell, as a bool scalar, whether no element of a tree is a NaN or an infinity."""
    return mx.all(mx.stack([mx.all(mx.isfinite(leaf)) for leaf in leaves(tree)] or [mx.array(True)]))


def skips(state: State) -> bool:
    """Tell whether an optimiser's state is that of one with `skip_nonfinite` somewhere in it."""
    return any("skipped" in one for one in _chain(state))


def _chain(state: Any) -> Iterator[State]:
    """Yield the states of the wrappers, the outermost first, and of the optimisers inside."""
    if isinstance(state, dict):
        yield state
        for inner in (state.get("optimizer"), state.get("inner"), *state.get("groups", ())):
            yield from _chain(inner)


def _chosen(condition: Array, yes: Tree, no: Tree) -> Tree:
    return tree_map(lambda a, b: mx.where(condition, a, b).astype(b.dtype), yes, no)


def _zeros(params: Params) -> Tree:
    return tree_map(lambda p: mx.zeros(p.shape, _wide(p.dtype)), params)


def _wide(dtype: Any) -> Any:
    """float32 for the two halves, the dtype itself otherwise."""
    return mx.float32 if dtype in (mx.float16, mx.bfloat16) else dtype


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name} is a number above 0; got {value!r}")
