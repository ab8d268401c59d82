"""A wrapper that keeps the memory of an optimiser in 8 bits, and updates one large parameter after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from ..compile import rng
from ..core._mlx import mx, utils
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ..tree._paths import divided, flat, leaves
from ..tree._select import Select
from ._optimizer import Optimizer
from ._quantization import from_codes, to_codes
from ._state import map_stages, stages, state_of
from ._wrap import wrapped

__all__ = ["quantized"]

Verb: TypeAlias = Callable[[Optimizer], Optimizer]
tree_map_with_path = utils.tree_map_with_path

_SMALLEST_SIZE = 4096
"""The number of elements from which the memory of a parameter is quantised. Biases and norms keep float32."""

_SCALES = "_scales"
"""The end of the name of the scales, beside the codes."""


def quantized(*, bits: int = 8, seed: int | Array = 0) -> Verb:
    """Keep the memory of an optimiser, such as the moments of Adam, in 8 bits. The update computes in float32.

    A large parameter has one byte for each number of its memory, and four bytes for the scale of 64 numbers. A code is
    a step on the fourth root of the number, and it is rounded at random: with rounding to the nearest step, an average
    with a decay of 0.999 would stand still. Where the optimiser updates each parameter alone (`by_leaf`), one large
    parameter is updated after another, so that the float32 memory of one parameter at a time exists. With bfloat16
    parameters put `stochastic_rounding()` around it. See Dettmers et al., 8-bit Optimizers via Block-wise Quantization,
    https://arxiv.org/abs/2110.02861, whose codes are others.

    Args:
        bits: 8, the only width that there is.
        seed: The seed or key of the random stream, which the state keeps under `key`.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer. Its memory has uint8 codes under the name of each
        quantised array, in the shape of the parameter, and float32 scales under that name with `_scales`. Memory of
        another shape than the parameter, and of parameters below 4,096 elements, stays as it is.

    Raises:
        ValueError: Another width. From `init`: the optimiser keeps no memory under the name `memory`, or it is
            `sharded`.
        TypeError: `seed` is neither an int of 0 or more nor a key.

    >>> from mlx_fp import optim
    >>> opt = quantized()(optim.adam(1e-3))
    >>> memory = opt.init({"w": mx.ones((64, 64))})["inner"]["memory"]["w"]
    >>> {name: (str(array.dtype)[9:], array.shape) for name, array in memory.items() if name.startswith("m")}
    {'m': ('uint8', (64, 64)), 'm_scales': ('float32', (64,))}
    """
    if bits != 8 or isinstance(bits, bool):
        raise ValueError(f"bits of quantized is 8; got {bits!r}")
    rng.check_seed(seed)

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            key, state = rng.key(seed), inner.init(params)
            _check_memory(inner, state)
            return {"key": key, "inner": _encoded(state, params, key)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            own_key, next_key = mx.random.split(state["key"])
            after, memory, done = dict[str, Array](), dict[str, Array](), list[Array]()
            chosen = list(_parts(params)) if inner.by_leaf else [Select(lambda path, leaf: True, "all")]
            for part in chosen:
                trees = [divided(part)(tree)[0] for tree in (grads, params)]
                trees = _read_after(done, [*trees, state_of(state["inner"], part)])
                new, new_state = in_use().update(inner.update, trees[0], _decoded(trees[2], trees[1]), trees[1])
                new_state = _encoded(new_state, new, own_key)
                done = in_use().throttled(leaves([new, new_state]), _float_bytes(new))
                after |= flat(new)
                memory |= flat(new_state)
            params = tree_map_with_path(lambda path, _: after[path], params, path="")
            return params, {
                "key": next_key,
                "inner": tree_map_with_path(lambda path, _: memory[path], state["inner"], path=""),
            }

        return wrapped("quantized", f"{bits}", inner, init, update, by_leaf=True)

    return wrap


def _parts(params: Params) -> Iterator[Select]:
    """Yield the selection of all small parameters, and of each large parameter."""
    large = [path for path, leaf in flat(params).items() if leaf.size >= _SMALLEST_SIZE]
    small = frozenset(flat(params)).difference(large)
    for part in (small, *(frozenset([path]) for path in large)):
        if part:
            yield Select(lambda path, leaf, part=part: path in part, "part")  # type: ignore[misc]


def _float_bytes(params: Params) -> int:
    """Return the bytes of parameters and two arrays of memory in float32."""
    return sum(3 * leaf.size * mx.float32.size for leaf in leaves(params))


def _read_after(done: list[Array], trees: list[Tree]) -> list[Tree]:
    """Return the same trees; their arrays are read after the arrays that are done."""
    arrays = leaves(trees)
    if not done or not arrays:
        return trees
    waiting = iter(mx.depends(arrays, done))
    delayed: list[Tree] = utils.tree_map(lambda _: next(waiting), trees)
    return delayed


def _encoded(state: State, params: Params, key: Array) -> State:
    """Return a state with the memory of large parameters in codes, encoded one after another.

    The first array of each parameter is rounded with the same key, and so is the second. A key for each path would be a
    constant in the compiled function, and MLX would compile a kernel for each path.
    """
    done = list[Array]()

    def encode_leaf(param: Array, memory: Tree) -> Tree:
        encoded, own_key = dict[str, Tree](), key
        for name, leaf in memory.items():
            encoded[name] = leaf
            if _is_large(leaf, param):
                (ready,) = mx.depends([leaf.astype(mx.float32)], done[-1:])
                encoded[name], encoded[name + _SCALES] = to_codes(ready, own_key)
                done.append(encoded[name + _SCALES])
                own_key = own_key[::-1]
        return encoded

    return _with_memories(state, lambda memory: utils.tree_map(encode_leaf, params, memory))


def _decoded(state: State, params: Params) -> State:
    """Return a state with all memory in floating dtypes."""

    def decode_leaf(param: Array, memory: Tree) -> Tree:
        return {
            name: from_codes(leaf, memory[name + _SCALES]) if name + _SCALES in memory else leaf
            for name, leaf in memory.items()
            if name.removesuffix(_SCALES) == name or name.removesuffix(_SCALES) not in memory
        }

    return _with_memories(state, lambda memory: utils.tree_map(decode_leaf, params, memory))


def _with_memories(state: State, change: Callable[[Tree], Tree]) -> State:
    """Change the memory of the parameters in the states of all optimisers in a state."""
    return map_stages(lambda stage: {**stage, "memory": change(stage["memory"])} if "memory" in stage else stage, state)


def _is_large(leaf: object, param: Array) -> bool:
    """Tell whether memory is a floating array in the shape of a large parameter."""
    if not isinstance(leaf, mx.array) or not mx.issubdtype(leaf.dtype, mx.floating):
        return False
    return leaf.shape == param.shape and leaf.size >= _SMALLEST_SIZE


def _check_memory(inner: Optimizer, state: State) -> None:
    """Refuse an optimiser without memory, and one whose memory is divided among processes."""
    if any("sharded" in stage for _, stage in stages(state)):
        raise ValueError(f"quantized: {inner!r} divides its memory among processes, and a group may not be divided")
    if not any(leaves(stage.get("memory", {})) for _, stage in stages(state)):
        raise ValueError(f"quantized: {inner!r} keeps no memory of its parameters")
