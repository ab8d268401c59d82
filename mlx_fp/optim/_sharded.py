"""An optimiser whose memory is divided among processes: each keeps and updates a slice of all parameters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from ..across._world import World
from ..core._mlx import mx, utils
from ..core._types import Array, Params, State, Tree
from ..tree._paths import flat, leaves
from ._optimizer import Optimizer, require_optimizer
from ._state import stages

__all__ = ["own_state", "shard_sizes", "sharded", "whole_state", "without_shards"]

_NOT_ELEMENTWISE = ("adafactor", "muon")

tree_map = utils.tree_map


def sharded(world: World) -> Callable[[Optimizer], Optimizer]:
    """Divide the memory of an optimiser among processes, which changes no bit of the parameters.

    The parameters that train are one vector for each dtype. Each process keeps the memory of a slice, updates that
    slice, and receives the other slices in a second message. Checkpoints hold the whole memory, so a run continues with
    any number of processes. See ZeRO-1 in Rajbhandari et al., https://arxiv.org/abs/1910.02054.

    Args:
        world: The processes, `fp.world()`. The training step needs the same `across=world`.

    Returns:
        A function of an elementwise Optimizer, such as `adamw`. Put `clip_norm` and other wrappers around the result.

    Raises:
        TypeError: The argument of that function is no Optimizer.
        ValueError: The optimiser is a wrapper, or updates whole matrices.

    >>> from mlx_fp import optim, world
    >>> optimizer, params = optim.sharded(world())(optim.sgd(0.5)), {"w": mx.array([1.0, 2.0])}
    >>> optimizer.update({"w": mx.array([1.0, 1.0])}, optimizer.init(params), params)[0]["w"].tolist()
    [0.5, 1.5]
    """

    def wrap(inner: Optimizer) -> Optimizer:
        _check_elementwise(require_optimizer(inner, "sharded"))

        def init(params: Params) -> State:
            vectors = _vectors(params)
            sizes = {name: mx.array(vector.size, mx.uint64) for name, vector in vectors.items()}
            return {"sharded": sizes, "inner": inner.init(_own(world, vectors))}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            dtypes = tree_map(lambda leaf: leaf.dtype, params)
            like = tree_map(lambda grad, dtype: grad.astype(dtype), grads, dtypes)
            own_grads, own_params = (_own(world, _vectors(tree)) for tree in (like, params))
            updated, memory = inner.update(own_grads, state["inner"], own_params)
            whole = {name: world.gather(vector).reshape(-1) for name, vector in updated.items()}
            return _as_tree(whole, params), {"sharded": state["sharded"], "inner": memory}

        return Optimizer(init, update, f"sharded({inner.name})", f"sharded({inner!r})")

    return wrap


def whole_state(world: World, opt_state: State) -> State:
    """Return a state in which the memory of all processes is put together. All processes must call it.

    >>> whole_state(World(), {"learning_rate": 0.1})
    {'learning_rate': 0.1}
    """
    state: State = _with_shards(opt_state, lambda shard, size: world.gather(shard).reshape(-1)[:size])
    return state


def own_state(world: World, opt_state: State) -> State:
    """Return a state with the slices of this process, of a state with the memory of all.

    >>> own_state(World(), {"learning_rate": 0.1})
    {'learning_rate': 0.1}
    """
    state: State = _with_shards(opt_state, lambda vector, size: _slice(world, vector))
    return state


def shard_sizes(world: World, opt_state: State) -> list[tuple[int, mx.Dtype]]:
    """List the sizes and dtypes of the slices that an update gathers, in order. Empty for a state without shards.

    >>> shard_sizes(World(), {"learning_rate": 0.1})
    []
    """
    sizes = [stage["sharded"] for _, stage in stages(opt_state) if "sharded" in stage]
    return [(-(-int(size) // world.size), getattr(mx, name)) for each in sizes for name, size in each.items()]


def without_shards(opt_state: State) -> Tree:
    """Return the arrays of a state that are the same in all processes.

    >>> without_shards({"sharded": {}, "inner": {"step": 1, "memory": {}}})
    {'sharded': {}, 'inner': {'step': 1}}
    """
    if not isinstance(opt_state, dict):
        return opt_state
    left = {name: without_shards(entry) for name, entry in opt_state.items()}
    if "sharded" in left:
        left["inner"] = {name: entry for name, entry in left["inner"].items() if name != "memory"}
    return left


def _with_shards(opt_state: Any, change: Callable[[Array, int], Array]) -> Any:
    """Change the vectors in the memory of each sharded optimiser within a state."""
    if isinstance(opt_state, list):
        return [_with_shards(entry, change) for entry in opt_state]
    if not isinstance(opt_state, dict):
        return opt_state
    if "sharded" not in opt_state:
        return {name: _with_shards(entry, change) for name, entry in opt_state.items()}
    memory = {
        name: tree_map(
            lambda leaf, size=int(opt_state["sharded"][name]): change(leaf, size) if leaf.ndim else leaf, each
        )
        for name, each in opt_state["inner"]["memory"].items()
    }
    return {**opt_state, "inner": {**opt_state["inner"], "memory": memory}}


def _vectors(params: Params) -> dict[str, Array]:
    """Concatenate the leaves of each dtype, by the name of the dtype."""
    names = dict.fromkeys(_name(leaf) for leaf in leaves(params))
    return {name: mx.concatenate([a.reshape(-1) for a in leaves(params) if _name(a) == name]) for name in names}


def _as_tree(vectors: dict[str, Array], params: Params) -> Params:
    """Cut vectors into the leaves of `params`."""
    pieces: dict[str, Array] = {}
    for name, vector in vectors.items():
        like = {path: leaf for path, leaf in flat(params).items() if _name(leaf) == name}
        ends = list(accumulate(leaf.size for leaf in like.values()))
        pieces |= dict(zip(like, mx.split(vector[: ends[-1]], ends[:-1]), strict=True))
    tree: Params = utils.tree_map_with_path(lambda path, leaf: pieces[path].reshape(leaf.shape), params, path="")
    return tree


def _own(world: World, vectors: dict[str, Array]) -> dict[str, Array]:
    return {name: _slice(world, vector) for name, vector in vectors.items()}


def _slice(world: World, vector: Array) -> Array:
    """Return the slice of a vector that is of this process. All slices have one length: the last ends with zeros."""
    if world.size == 1:
        return vector
    padded = mx.pad(vector, (0, -vector.size % world.size))
    return padded.reshape(world.size, -1)[world.rank]


def _name(leaf: Array) -> str:
    return str(leaf.dtype).rpartition(".")[2]


def _check_elementwise(optimizer: Optimizer) -> None:
    """Raise ValueError for an optimiser whose update of a number depends on other numbers."""
    kind = optimizer.name.partition("(")[0]
    state = optimizer.init({"float32": mx.zeros((1,))})
    if kind in _NOT_ELEMENTWISE or "memory" not in state:
        raise ValueError(
            f"sharded takes an elementwise optimiser, such as adamw, because each process sees a slice of the "
            f"parameters; {optimizer!r} is none. Put wrappers, such as clip_norm, around sharded"
        )
