"""The pure function of several steps that share one tree of parameters, taken in turn on each batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..core._errors import located
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State, Tree
from ..optim._optimizer import Optimizer
from ..tree._paths import divided, flat, merge
from ..tree._select import Select
from ._carried import Logged
from ._checks import Layout, check_state, layout
from ._computation import Computation
from ._rows import example_count

__all__ = ["Change", "Turns", "changed_paths", "first_state"]

Change = Callable[[Params], Params]
"""A function of all parameters that returns changed ones, in a tree of the same structure."""

tree_map = utils.tree_map


@dataclass(frozen=True, slots=True)
class Turns:
    """The members of a step, in order. A member is a step, or a function of the parameters."""

    members: Mapping[str, Computation | Change]
    every: Mapping[str, int]
    """The number of steps from one turn of a member to its next turn. Default: 1."""
    trained: frozenset[str]
    """The paths of the parameters that a member trains or changes."""

    @property
    def computations(self) -> dict[str, Computation]:
        """The members that are steps."""
        return {name: member for name, member in self.members.items() if isinstance(member, Computation)}

    def trainable(self, params: Params) -> Params:
        """Return the parameters that a member trains or changes."""
        return divided(Select(lambda path, leaf: path in self.trained, "trained"))(params)[0]

    def optimizer(self) -> Optimizer:
        """Return the optimisers of the members as one: for the name, and to find rates that follow a schedule."""
        members = self.computations

        def init(params: Params) -> State:
            return first_state([member.optimizer.init(member.split(params)[0]) for member in members.values()])

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            groups = []
            for member, group in zip(members.values(), state["groups"], strict=True):
                trained, rest = member.split(params)
                trained, group = member.optimizer.update(member.split(grads)[0], group, trained)
                params = merge(trained, rest)
                groups.append(group)
            return params, {"step": state["step"] + 1, "groups": groups}

        names = (f"{name}: {member.optimizer.name}" for name, member in members.items())
        return Optimizer(init, update, f"in_turn({', '.join(names)})")

    def step(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        """Take the turn of each member on a batch: `(params, opt_state, (logs, weights, examples))`."""
        self._check_state(opt_state)
        key, memory, optimizer = opt_state["key"], dict(opt_state["metrics"]), opt_state["optimizer"]
        count, waiting = optimizer["step"] + 1, iter(optimizer["groups"])
        groups, logs, weights = [], State(), State()
        for name, member in self.members.items():
            every = self.every.get(name, 1)
            has_turn = None if every == 1 else count % every == 0
            with located(member=name):
                if not isinstance(member, Computation):
                    params = _chosen(has_turn, _changed(member, params), params)
                    continue
                own = {metric.name: memory[metric.name] for metric in member.metrics}
                before = {"key": key, "optimizer": next(waiting), "metrics": own}
                params = _after(logs, params)
                new_params, after, logged = member.step(params, before, batch)
            params, key = _chosen(has_turn, new_params, params), after["key"]
            groups.append(_chosen(has_turn, after["optimizer"], before["optimizer"]))
            memory |= _chosen(has_turn, after["metrics"], own)
            logs |= {f"{name}_{log}": value for log, value in logged[0].items()}
            weights |= {f"{name}_{log}": _counted(has_turn, weight) for log, weight in logged[1].items()}
        losses, examples = [logs[f"{name}_loss"] for name in self.computations], example_count(batch)
        logs, weights = {"loss": sum(losses[1:], losses[0]), **logs}, {"loss": examples, **weights}
        opt_state = {**opt_state, "key": key, "optimizer": {"step": count, "groups": groups}, "metrics": memory}
        return params, opt_state, (logs, weights, examples)

    def _check_state(self, opt_state: State) -> None:
        """Refuse a state of another step."""
        check_state(opt_state)
        optimizer, members = opt_state["optimizer"], list(self.computations)
        groups = optimizer.get("groups") if isinstance(optimizer, dict) else None
        if not isinstance(groups, (list, tuple)) or len(groups) != len(members) or "step" not in optimizer:
            has = f"{len(groups)} groups" if isinstance(groups, (list, tuple)) else "no groups"
            raise ValueError(
                f"in_turn takes the opt_state of its own init, with a group for each of {members}; got {has}"
            )


def first_state(groups: list[State]) -> State:
    """Return the state of the optimisers before the first step, from the states of the members."""
    return {"step": mx.array(0, mx.uint64), "groups": groups}


def changed_paths(name: str, change: Change, params: Params) -> set[str]:
    """Return the paths of the leaves that a function of the parameters changes.

    Raises:
        ValueError: It returns a tree with other paths or shapes.

    >>> changed_paths("copy", lambda params: {**params, "b": params["a"]}, {"a": mx.array(1.0), "b": mx.array(2.0)})
    {'b'}
    """
    with located(member=name):
        before, after = flat(params), flat(_changed(change, params))
    return {path for path, leaf in before.items() if after[path] is not leaf}


def _changed(change: Change, params: Params) -> Params:
    """Call a function of the parameters; return its result in the containers and dtypes of the parameters."""
    after: Tree = change(params)
    kept: Layout = layout(after) if isinstance(after, (dict, list, tuple)) else frozenset()
    if kept != layout(params):
        differing = sorted(path for path, _ in kept ^ layout(params))[:4]
        raise ValueError(f"it returns all parameters, with the same paths and shapes; these differ: {differing}")
    leaves = flat(after)
    changed: Params = utils.tree_map_with_path(lambda path, leaf: _as(leaf, leaves[path]), params, path="")
    return changed


def _as(before: Array, after: Array) -> Array:
    return after if after.dtype == before.dtype else after.astype(before.dtype)


def _chosen(has_turn: Array | None, after: Tree, before: Tree) -> Tree:
    """Return the tree after a turn where the member has its turn, else the tree before it."""
    if has_turn is None:
        return after
    return tree_map(lambda new, old: new if new is old else mx.where(has_turn, new, old), after, before)


def _after(logs: State, params: Params) -> Params:
    """Return the parameters such that MLX reads them after the logs of the members before.

    So the activations of one member at a time are in memory, and `mx.compile` merges no operations of two members: for
    some losses the merged function is an IndexError of MLX 0.32.
    """
    if not logs:
        return params
    arrays = flat(params)
    later = dict(zip(arrays, mx.depends(list(arrays.values()), list(logs.values())), strict=True))
    ordered: Params = utils.tree_map_with_path(lambda path, leaf: later[path], params, path="")
    return ordered


def _counted(has_turn: Array | None, weight: Array | int) -> Array | int:
    """Return the weight of a log: 0 where the member has no turn."""
    return weight if has_turn is None else mx.where(has_turn, mx.array(weight, mx.float32), 0.0)
