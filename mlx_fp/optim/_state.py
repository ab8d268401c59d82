"""Read and change the state of optimisers, also inside wrappers and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..core._mlx import mx, utils
from ..core._options import check_options, number
from ..core._types import Array, Params, State, Tree
from ..tree._paths import divided, flat, leaves
from ..tree._select import Select
from ._rules import RATE

__all__ = [
    "averaged",
    "finite",
    "finite_or_unchanged",
    "map_stages",
    "reading",
    "scale_rates",
    "skip_count",
    "skips",
    "stages",
    "state_of",
]

_INSIDE = {"inner", "memory", "optimizer", "groups"}
"""Names in a state that hold other states or the memory of parameters."""

_OF_PARAMETERS = {"average", "base", "memory", "slow"}
"""Names in a state whose values have the paths of the parameters."""

tree_map_with_path = utils.tree_map_with_path


def averaged(opt_state: State) -> Callable[[Params], Params]:
    """Replace parameters by the averages that `ema` keeps, also inside groups.

    Args:
        opt_state: The state of an optimiser or of a step.

    Returns:
        A function of parameters that returns the averages in the dtypes of the parameters. A parameter without an
        average, such as a frozen one, stays.

    Raises:
        KeyError: No wrapper is `ema`.

    >>> from mlx_fp import optim
    >>> params = {"w": mx.array(1.0)}
    >>> averaged(optim.ema(0.9)(optim.sgd(0.1)).init(params))(params)["w"].item()
    1.0
    """
    states = _states_with(opt_state, "average")
    averages = {path: leaf for state in states for path, leaf in flat(state["average"]).items()}

    def average_of(path: str, leaf: Array) -> Array:
        return averages[path].astype(leaf.dtype) if path in averages else leaf

    return lambda params: tree_map_with_path(average_of, params, path="")


def reading(name: str) -> Callable[[State], Any]:
    """Read a value that a wrapper keeps in the state, for example `reading("grad_norm")`; the outermost wrapper first.

    Args:
        name: The name of the value: `grad_norm`, `skipped`, `in_a_row`, `average`, …

    Returns:
        A function of the state of an optimiser or of a step; it returns the value.

    Raises:
        KeyError: From that function: no wrapper keeps the value (the message has the names), or several groups do. Then
            give the state of one group, for example `opt_state["optimizer"]["groups"][0]`.

    >>> from mlx_fp import optim
    >>> reading("grad_norm")(optim.clip_norm(1.0)(optim.sgd(0.1)).init({"w": mx.array(1.0)})).item()
    0.0
    """

    def find(opt_state: State) -> Any:
        states = _states_with(opt_state, name)
        if len(states) > 1:
            raise KeyError(f"{len(states)} groups keep {name!r}: read it of one, in the list 'groups' of the state")
        return states[0][name]

    return find


def scale_rates(factor: float, *, least: float = 0.0) -> Callable[[State], State]:
    """Multiply every learning rate in a state by `factor`.

    Args:
        factor: A number above 0.
        least: The rate below which no rate is reduced; 0 by default. A rate that is lower already stays.

    Returns:
        A function of the state of an optimiser or of a step; it returns a changed copy.

    Raises:
        ValueError: `factor` is not above 0, or `least` is below 0.

    >>> from mlx_fp import optim
    >>> state = optim.clip_norm(1.0)(optim.sgd(0.5)).init({"w": mx.array(1.0)})
    >>> scale_rates(0.5)(state)["inner"]["learning_rate"].item()
    0.25
    """
    check_options("scale_rates", {"factor": factor, "least": least}, {"factor": number(above=0), "least": RATE})

    def scale(stage: State) -> State:
        if "learning_rate" not in stage:
            return stage
        rate = stage["learning_rate"]
        reduced = mx.minimum(rate, mx.maximum(rate * factor, least))
        return {**stage, "learning_rate": rate * factor if factor > 1 else reduced}

    return lambda state: map_stages(scale, state)


def finite(tree: Tree) -> Array:
    """Tell whether all elements of a tree are finite, as a bool array without axes."""
    return mx.all(mx.stack([mx.all(mx.isfinite(leaf)) for leaf in leaves(tree)] or [mx.array(True)]))


def finite_or_unchanged(tree: Tree, before: Tree) -> Array:
    """Tell whether each element of a tree is finite or unchanged, as a bool array without axes.

    For example, a mask with a constant -inf is unchanged.

    >>> mask = mx.array([0.0, -mx.inf])
    >>> finite_or_unchanged({"m": mask}, {"m": mask}).item(), finite_or_unchanged({"m": mask}, {"m": mask + 1.0}).item()
    (True, True)
    >>> finite_or_unchanged({"m": mask}, {"m": mx.zeros((2,))}).item()
    False
    """
    same = utils.tree_map(lambda a, b: mx.array(True) if a is b else mx.all(mx.isfinite(a) | (a == b)), tree, before)
    return mx.all(mx.stack(leaves(same) or [mx.array(True)]))


def skip_count(state: State) -> Array:
    """Return the number of updates that the `skip_nonfinite` wrappers in a state have skipped."""
    return sum((stage["skipped"] for _, stage in stages(state) if "skipped" in stage), mx.array(0, mx.uint32))


def skips(state: State) -> bool:
    """Tell whether a state has a `skip_nonfinite` wrapper."""
    return any("skipped" in stage for _, stage in stages(state))


def stages(state: object, path: str = "") -> Iterator[tuple[str, State]]:
    """Yield the states of all wrappers and optimisers in a state, the outermost first, with their paths.

    >>> [path for path, _ in stages({"optimizer": {"inner": {"step": 0}}})]
    ['', 'optimizer', 'optimizer.inner']
    """
    if isinstance(state, dict):
        yield path, state
        for name, inner in _inside(state):
            yield from stages(inner, f"{path}.{name}" if path else name)


def map_stages(fn: Callable[[State], State], state: State) -> State:
    """Change the states of all wrappers and optimisers in a state, in the order of `stages`. Return a changed copy.

    >>> map_stages(lambda stage: {**stage, "step": 0}, {"inner": {"step": 3}})
    {'inner': {'step': 0}, 'step': 0}
    """
    changed = dict(fn(state))
    for key in ("optimizer", "inner"):
        if key in changed:
            changed[key] = map_stages(fn, changed[key])
    if "groups" in changed:
        changed["groups"] = [map_stages(fn, group) for group in changed["groups"]]
    return changed


def state_of(state: State, chosen: Select) -> State:
    """Return the state of an optimiser for the chosen parameters only.

    >>> from mlx_fp.tree._select import under
    >>> state_of({"step": 3, "memory": {"a": {"m": 1}, "b": {"m": 2}}}, under("b"))
    {'step': 3, 'memory': {'a': {'m': {}}, 'b': {'m': 2}}}
    """
    part, chosen_or_inside = dict(state), Select(lambda path, _: chosen(path) or chosen(path.rpartition(".")[0]), "")
    for name, value in state.items():
        if name in _OF_PARAMETERS:
            part[name] = divided(chosen_or_inside)(value)[0]
        elif name == "inner":
            part[name] = state_of(value, chosen)
        elif name == "groups":
            part[name] = [state_of(group, chosen) for group in value]
    return part


def _states_with(opt_state: State, name: str) -> list[State]:
    """Return the states that have a value under `name`: of nested wrappers the outermost, of groups each.

    Raise KeyError, with the names that there are, if no state has it.
    """
    states = list(_outermost(opt_state, name))
    if not states:
        names = sorted({key for _, state in stages(opt_state) for key in state} - _INSIDE)
        raise KeyError(f"no wrapper of this optimiser keeps {name!r}; kept: {', '.join(names)}")
    return states


def _outermost(state: object, name: str) -> Iterator[State]:
    if isinstance(state, dict) and name in state:
        yield state
    else:
        for _, inner in _inside(state):
            yield from _outermost(inner, name)


def _inside(state: object) -> Iterator[tuple[str, object]]:
    """Yield the states of the wrapped optimisers, with their names."""
    if isinstance(state, dict):
        yield from ((name, state[name]) for name in ("optimizer", "inner") if name in state)
        yield from ((f"groups.{i}", group) for i, group in enumerate(state.get("groups", ())))
