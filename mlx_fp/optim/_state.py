"""Read and change what optimisers keep in their state, however they are wrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..core._mlx import mx, utils
from ..core._options import check_options, number
from ..core._types import Array, Params, State, Tree
from ..tree._paths import flat, leaves
from ._rules import RATE

__all__ = ["averaged", "finite", "finite_or_unchanged", "reading", "scale_rates", "skip_count", "skips", "stages"]

_INSIDE = {"inner", "memory", "optimizer", "groups"}

tree_map_with_path = utils.tree_map_with_path


def averaged(opt_state: State) -> Callable[[Params], Params]:
    """Put the averages that `ema` keeps, in every group, in the place of the parameters, in their dtypes.

    KeyError without `ema`.
    """
    holders = _holders(opt_state, "average")
    found = {path: leaf for holder in holders for path, leaf in flat(holder["average"]).items()}

    def held(path: str, leaf: Array) -> Array:
        return found[path].astype(leaf.dtype) if path in found else leaf

    return lambda params: tree_map_with_path(held, params, path="")


def reading(name: str) -> Callable[[State], Any]:
    """Find what a wrapper keeps under `name` in an optimiser's state, the outermost first: `grad_norm`, `skipped`, …

    Takes the state of a step or of an optimiser. KeyError, naming what there is, when no wrapper keeps it, and when
    several groups do: then read it of the state of one, `opt_state["optimizer"]["groups"][0]` say.
    """

    def find(opt_state: State) -> Any:
        holders = _holders(opt_state, name)
        if len(holders) > 1:
            raise KeyError(f"{len(holders)} groups keep {name!r}: read it of one, in the list 'groups' of the state")
        return holders[0][name]

    return find


def scale_rates(factor: float, *, least: float = 0.0) -> Callable[[State], State]:
    """Multiply every learning rate in an optimiser's state, or a step's, by `factor`, down to `least`; lower ones stay.

    ValueError for a factor that is not above 0, and for a `least` below 0.

    >>> from mlx_fp import optim
    >>> state = optim.clip_norm(1.0)(optim.sgd(0.5)).init({"w": mx.array(1.0)})
    >>> scale_rates(0.5)(state)["inner"]["learning_rate"].item()
    0.25
    """
    check_options("scale_rates", {"factor": factor, "least": least}, {"factor": number(above=0), "least": RATE})

    def scaled(state: State) -> State:
        changed = dict(state)
        for key in {"optimizer", "inner"} & state.keys():
            changed[key] = scaled(state[key])
        if "groups" in state:
            changed["groups"] = [scaled(one) for one in state["groups"]]
        if "learning_rate" in state:
            rate = state["learning_rate"]
            lower = mx.minimum(rate, mx.maximum(rate * factor, least))
            changed["learning_rate"] = rate * factor if factor > 1 else lower
        return changed

    return scaled


def finite(tree: Tree) -> Array:
    """Tell, as a bool scalar, whether no element of a tree is a NaN or an infinity."""
    return mx.all(mx.stack([mx.all(mx.isfinite(leaf)) for leaf in leaves(tree)] or [mx.array(True)]))


def finite_or_unchanged(tree: Tree, before: Tree) -> Array:
    """Tell, as a bool scalar, whether each element of a tree is finite or unchanged, as a constant -inf of a mask is.

    >>> mask = mx.array([0.0, -mx.inf])
    >>> finite_or_unchanged({"m": mask}, {"m": mask}).item(), finite_or_unchanged({"m": mask}, {"m": mask + 1.0}).item()
    (True, True)
    >>> finite_or_unchanged({"m": mask}, {"m": mx.zeros((2,))}).item()
    False
    """
    same = utils.tree_map(lambda a, b: mx.array(True) if a is b else mx.all(mx.isfinite(a) | (a == b)), tree, before)
    return mx.all(mx.stack(leaves(same) or [mx.array(True)]))


def skip_count(state: State) -> Array:
    """Return how many updates the wrappers of `skip_nonfinite` in an optimiser's state have skipped."""
    return sum((one["skipped"] for _, one in stages(state) if "skipped" in one), mx.array(0, mx.uint32))


def skips(state: State) -> bool:
    """Tell whether an optimiser's state is that of one with `skip_nonfinite` somewhere in it."""
    return any("skipped" in one for _, one in stages(state))


def stages(state: Any, path: str = "") -> Iterator[tuple[str, State]]:
    """Yield the state of each wrapper, the outermost first, and of each optimiser inside, by path.

    >>> [path for path, _ in stages({"optimizer": {"inner": {"step": 0}}})]
    ['', 'optimizer', 'optimizer.inner']
    """
    if isinstance(state, dict):
        yield path, state
        for name, inner in _inside(state):
            yield from stages(inner, f"{path}.{name}" if path else name)


def _holders(opt_state: State, name: str) -> list[State]:
    """Return the states that keep something of a name, of wrappers in one another the outermost, of groups each.

    KeyError, naming what there is, when none does.
    """
    found = list(_outermost(opt_state, name))
    if not found:
        kept = sorted({key for _, state in stages(opt_state) for key in state} - _INSIDE)
        raise KeyError(f"no wrapper of this optimiser keeps {name!r}; kept: {', '.join(kept)}")
    return found


def _outermost(state: Any, name: str) -> Iterator[State]:
    if isinstance(state, dict) and name in state:
        yield state
    else:
        for _, inner in _inside(state):
            yield from _outermost(inner, name)


def _inside(state: Any) -> Iterator[tuple[str, Any]]:
    """Yield the states of the optimisers that an optimiser wraps, by path."""
    if isinstance(state, dict):
        yield from ((name, state[name]) for name in ("optimizer", "inner") if name in state)
        yield from ((f"groups.{i}", group) for i, group in enumerate(state.get("groups", ())))
