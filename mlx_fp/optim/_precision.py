"""Wrappers for parameters and memory in 16 bits: float32 copies, rounding at random, and the dtype of the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..compile import rng
from ..core._mlx import mx, utils
from ..core._text import dtype_name
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ..tree._casting import is_narrow
from ..tree._paths import leaves
from ._optimizer import Optimizer
from ._state import map_stages, stages
from ._wrap import wrapped

__all__ = ["master", "state_dtype", "stochastic_rounding"]

Verb: TypeAlias = Callable[[Optimizer], Optimizer]
tree_map = utils.tree_map

_EXTRA_BITS = 16
"""The number of lower bits that a float32 number has and a bfloat16 number has not."""


def master() -> Verb:
    """Update float32 copies of the narrow parameters, and round the copies to the parameters.

    A bfloat16 number has 8 significant bits: for example, `1.0 - 1e-3` is 1.0 in bfloat16. Without copies, many small
    updates change nothing. The inner optimiser sees the copies, and its memory is in float32. A float32 parameter has
    no copy. If something else than the update changes a parameter, its copy takes the new value. See Micikevicius et
    al., Mixed Precision Training, https://arxiv.org/abs/1710.03740.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer. Its state has the copies under `master`.

    >>> from mlx_fp import optim
    >>> opt, params = master()(optim.sgd(1e-3)), {"w": mx.array(1.0, mx.bfloat16)}
    >>> grads, state = {"w": mx.array(1.0, mx.bfloat16)}, opt.init(params)
    >>> for _ in range(100):
    ...     params, state = opt.update(grads, state, params)
    >>> round(state["master"]["w"].item(), 3), params["w"].item()
    (0.9, 0.8984375)
    """

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            wide = _widened(params, params)
            return {"master": _copies(wide, params), "inner": inner.init(wide)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            wide = in_use().elementwise(_current_copy, params, state["master"])
            wide, memory = in_use().update(inner.update, _widened(grads, params), state["inner"], wide)
            rounded = in_use().elementwise(lambda w, p: w.astype(p.dtype), wide, params)
            return rounded, {"master": _copies(wide, params), "inner": memory}

        return wrapped("master", "", inner, init, update)

    return wrap


def stochastic_rounding(*, seed: int | Array = 0) -> Verb:
    """Update bfloat16 parameters in float32, and round them at random: up or down, so that the mean is exact.

    Small updates count on average, and no second copy of the parameters is kept. The inner optimiser computes in
    float32, and its memory is in float32. Parameters of other dtypes are updated as without this wrapper. See Zamirai
    et al., Revisiting BFloat16 Training, https://arxiv.org/abs/2010.06192.

    Args:
        seed: The seed or key of the random stream, which the state keeps under `key`.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer.

    Raises:
        TypeError: `seed` is neither an int of 0 or more nor a key.

    >>> from mlx_fp import optim
    >>> opt, params = stochastic_rounding()(optim.sgd(1e-3)), {"w": mx.ones((1000,), mx.bfloat16)}
    >>> grads, state = {"w": mx.ones((1000,), mx.bfloat16)}, opt.init(params)
    >>> for _ in range(100):
    ...     params, state = opt.update(grads, state, params)
    >>> round(params["w"].astype(mx.float32).mean().item(), 2)
    0.9
    """
    first = _checked_seed(seed)

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"key": first(), "inner": inner.init(_widened(params, params, _is_bfloat16))}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            wide, wide_grads = (_widened(tree, params, _is_bfloat16) for tree in (params, grads))
            updated, memory = in_use().update(inner.update, wide_grads, state["inner"], wide)
            rounded, key = _rounded(updated, params, state["key"])
            return rounded, {"key": key, "inner": memory}

        return wrapped("stochastic_rounding", "", inner, init, update)

    return wrap


def state_dtype(dtype: mx.Dtype, *, seed: int | Array = 0) -> Verb:
    """Keep the memory of an optimiser, such as the moments of Adam, in another dtype. The update computes in float32.

    Memory in bfloat16 is rounded at random. With rounding to the nearest number, an average with a decay of 0.999 would
    stand still. Memory in float32 is for bfloat16 parameters, of which an optimiser keeps memory in bfloat16 by itself.
    Averages of `ema`, copies of `master`, rates and counters keep their dtypes.

    Args:
        dtype: `mx.bfloat16` or `mx.float32`.
        seed: The seed or key of the random stream for bfloat16, which the state keeps under `key`.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer.

    Raises:
        ValueError: Another dtype: second moments are too small for float16. From `init`: the optimiser keeps no memory
            of its parameters under the name `memory`.
        TypeError: `seed` is neither an int of 0 or more nor a key.

    >>> from mlx_fp import optim
    >>> opt = state_dtype(mx.bfloat16)(optim.adam(1e-3))
    >>> opt
    state_dtype(bfloat16)(adam(learning_rate=0.001))
    >>> opt.init({"w": mx.ones((2,))})["inner"]["memory"]["w"]["m"].dtype
    mlx.core.bfloat16
    """
    if dtype not in (mx.bfloat16, mx.float32):
        raise ValueError(f"state_dtype is mx.bfloat16 or mx.float32; got {dtype!r}")
    first, name = _checked_seed(seed), dtype_name(dtype)
    at_random = dtype == mx.bfloat16

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            state = inner.init(params)
            if not any(map(_is_float_array, leaves(_memories(state)))):
                raise ValueError(f"state_dtype: {inner!r} keeps no memory of its parameters that has a floating dtype")
            state = _with_memories(state, _cast(_memories(state), dtype))
            return {"key": first(), "inner": state} if at_random else {"inner": state}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            before = _memories(state["inner"])
            wide = _with_memories(state["inner"], _cast(before, mx.float32))
            params, after = in_use().update(inner.update, grads, wide, params)
            if not at_random:
                return params, {"inner": after}
            memories, key = _rounded(_memories(after), before, state["key"])
            return params, {"key": key, "inner": _with_memories(after, memories)}

        return wrapped("state_dtype", name, inner, init, update)

    return wrap


def _widened(tree: Tree, params: Params, chosen: Callable[[mx.Dtype], bool] = is_narrow) -> Tree:
    """Cast leaves of a tree to float32 where the dtype of the parameter is chosen; by default where it is narrow."""

    def wide(leaf: Array, param: Array) -> Array:
        return leaf.astype(mx.float32) if chosen(param.dtype) else leaf

    return in_use().elementwise(wide, tree, params)


def _is_bfloat16(dtype: mx.Dtype) -> bool:
    return dtype == mx.bfloat16


def _copies(wide: Tree, params: Params) -> Tree:
    """Return the float32 copies of the narrow parameters, with a hole for each other one."""
    return tree_map(lambda w, p: w if is_narrow(p.dtype) else {}, wide, params)


def _current_copy(param: Array, copy: Array | dict[str, Array]) -> Array:
    """Return the copy of a parameter, or the parameter itself where it has another value, or no copy."""
    if isinstance(copy, dict):
        return param
    return mx.where(copy.astype(param.dtype) == param, copy, param.astype(mx.float32))


def _rounded(tree: Tree, like: Tree, key: Array) -> tuple[Tree, Array]:
    """Cast a tree to the dtypes of `like`. Round bfloat16 leaves at random. Return the tree and the next key.

    One leaf is rounded after another, so that the random numbers of one leaf at a time are in memory.
    """
    count = sum(_is_bfloat16(leaf.dtype) for leaf in leaves(like))
    after, *keys = mx.random.split(key, count + 1)
    waiting, done = iter(keys), list[Array]()

    def cast(leaf: Array, before: Array) -> Array:
        if not _is_bfloat16(before.dtype) or leaf.dtype != mx.float32:
            return leaf.astype(before.dtype)
        (own_key,) = mx.depends([next(waiting)], done[-1:])
        done.append(_round_at_random(leaf, own_key))
        return done[-1]

    return tree_map(cast, tree, like), after


def _round_at_random(x: Array, key: Array) -> Array:
    """Round float32 to one of the two nearest bfloat16 numbers, with probabilities of which the mean is `x`.

    >>> _round_at_random(mx.full((4096,), 1 + 2**-9), mx.random.key(0)).astype(mx.float32).mean().item() - 1 < 2**-8
    True
    """
    noise = mx.random.randint(0, 1 << _EXTRA_BITS, x.shape, dtype=mx.uint32, key=key)
    upper = ((x.view(mx.uint32) + noise) >> _EXTRA_BITS) << _EXTRA_BITS
    return mx.where(mx.isfinite(x), upper.view(mx.float32), x).astype(mx.bfloat16)


def _memories(state: State) -> list[Tree]:
    """List the memory of the parameters in the states of all optimisers in a state."""
    return [stage["memory"] for _, stage in stages(state) if "memory" in stage]


def _with_memories(state: State, memories: list[Tree]) -> State:
    """Put the result of `_memories` back, after a change."""
    waiting = iter(memories)
    return map_stages(lambda stage: {**stage, "memory": next(waiting)} if "memory" in stage else stage, state)


def _cast(memories: list[Tree], dtype: mx.Dtype) -> list[Tree]:
    return [tree_map(lambda leaf: leaf.astype(dtype) if _is_float_array(leaf) else leaf, tree) for tree in memories]


def _is_float_array(leaf: Array) -> bool:
    return mx.issubdtype(leaf.dtype, mx.floating)


def _checked_seed(seed: int | Array) -> Callable[[], Array]:
    """Return a function that makes the key of a seed. Refuse any other value now."""
    rng.check_seed(seed)
    return lambda: rng.key(seed)
