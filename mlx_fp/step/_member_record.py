"""The record of several members that train in one compiled step: their stacked trees, and how to take one out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..compile._compiled import Compiled
from ..compile._evaluation import wait_for
from ..core._frozen import freeze_field
from ..core._mlx import mx, utils
from ..core._traceback import ShortTraceback
from ..core._types import Array, Batch, Params, State, Tree
from ..task._folds import Metric
from ._carried import Logged
from ._checks import check_state
from ._train_step import TrainStep

__all__ = ["SETTINGS", "Members", "Predictor", "Settings", "of_one", "only", "take_one"]

tree_map = utils.tree_map

Settings: TypeAlias = Mapping[str, Sequence[float]]
"""The values of options by name, one for each member."""

Predictor: TypeAlias = Callable[..., tuple[Tree, Tree]]
"""`predict(*xs, **kw) -> (mean, spread)`: the mean of the outputs of all members, and their standard deviation."""

SETTINGS = "settings"
"""The entry of the state for the settings of the members."""


@dataclass(frozen=True, slots=True, repr=False)
class Members:
    """A compiled pure function `many(params, opt_state, batch) -> (params, opt_state, logs)` of stacked trees.

    `members` makes it. Each array of the trees and of the logs has the members as its first axis. `opt_state` has one
    more entry than that of a step alone: `settings`, the values of the settings.
    """

    steps: tuple[TrainStep, ...]
    """The step of each member alone."""
    settings: Settings
    batches: str
    _whole: Compiled
    _each: Compiled
    _predict: Compiled

    def __post_init__(self) -> None:
        freeze_field(self, "settings")

    @property
    def count(self) -> int:
        """The number of members."""
        return len(self.steps)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that each step folds."""
        return self.steps[0].metrics

    @property
    def traces(self) -> int:
        """The number of traces of the step, one for each number of members and each shape of batches."""
        return self._whole.traces + self._each.traces

    def init(
        self, start: int | Array | Params | Sequence[int | Array | Params] = 0, *, seed: int | Sequence[int] = 0
    ) -> tuple[Params, State]:
        """Make the stacked parameters and states before the first step, evaluated.

        Args:
            start: A seed, and the members have the seeds `start`, `start + 1` and so on; or a list with a seed, a
                random key or parameters for each member; or parameters, with which all members start.
            seed: The seed of the random streams where `start` holds parameters; or a list with one for each member.

        Returns:
            `(params, opt_state)`.

        Raises:
            ValueError: For a list of another length than the number of members.
        """
        starts, seeds = _for_each("start", start, self.count), _for_each("seed", seed, self.count)
        pairs = [step.init(one, seed=key) for step, one, key in zip(self.steps, starts, seeds, strict=True)]
        params, opt_state = tree_map(lambda *leaves: mx.stack(list(leaves)), *pairs)
        values = {name: mx.array(list(each), mx.float32) for name, each in self.settings.items()}
        wait_for(params, opt_state, values)
        return params, {**opt_state, SETTINGS: values}

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step of all members.

        Args:
            params: The stacked parameters.
            opt_state: The stacked state from `init` or from the last step.
            batch: A batch for all members. With `batches="own"` each array has the members as first axis.

        Returns:
            `(params, opt_state, logs)`. Each array of `logs` has shape `(members,)`.

        Raises:
            ValueError: MLX cannot compute the model for several members; the message names the layer.
        """
        with ShortTraceback():
            params, opt_state, (logs, *_) = self.logged(params, opt_state, batch)
        return params, opt_state, logs

    def logged(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        """Do as a call does, and return the logs with their weights and the number of examples."""
        self._check(opt_state)
        result: tuple[Params, State, Logged] = self._whole(params, opt_state, batch)
        return result

    def logged_each(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, tuple[Logged, ...]]:
        """Take one step of all members, and return the logs of each member by itself."""
        self._check(opt_state)
        result: tuple[Params, State, tuple[Logged, ...]] = self._each(params, opt_state, batch)
        return result

    def _check(self, opt_state: State) -> None:
        """Refuse a state of other members."""
        check_state(opt_state)
        if opt_state.get(SETTINGS, {}).keys() != self.settings.keys():
            given = ", ".join(opt_state.get(SETTINGS, {})) or "none"
            raise ValueError(
                f"the members have the settings {', '.join(self.settings) or 'none'}; the state has {given}"
            )

    def member(self, index: int) -> Callable[[Tree], Tree]:
        """Take one member out of stacked trees.

        Args:
            index: The index of the member, from 0.

        Returns:
            A function of a stacked tree: of parameters, a state or logs. It returns the tree of a step alone.
        """

        return take_one(index)

    def only(self, indices: Sequence[int]) -> Callable[[Tree], Tree]:
        """Keep some members of stacked trees, for example those that have not stopped.

        A call with fewer members needs one more trace for each number of members.

        Args:
            indices: The indices of the members to keep, in the order of the result.

        Returns:
            A function of a stacked tree that returns a stacked tree.
        """

        return only(indices)

    def predict(self, params: Params) -> Predictor:
        """Return the mean prediction of all members, and its spread, as a function of the inputs.

        Args:
            params: The stacked parameters.

        Returns:
            `predict(*xs, **kw) -> (mean, spread)`. The spread is the standard deviation over the members.
        """

        def run(*xs: Tree, **kw: Tree) -> tuple[Tree, Tree]:
            result: tuple[Tree, Tree] = self._predict(params, xs, kw)
            return result

        return run

    def __repr__(self) -> str:
        return f"members({self.count})({self.steps[0]!r})"


def take_one(index: int) -> Callable[[Tree], Tree]:
    """Return a function that takes one member out of stacked trees."""

    def take(tree: Tree) -> Tree:
        own = of_one(tree) if isinstance(tree, dict) else tree
        return tree_map(lambda leaf: leaf[_checked_index(index, leaf.shape[0])], own)

    return take


def only(indices: Sequence[int]) -> Callable[[Tree], Tree]:
    """Return a function that keeps some members of stacked trees."""

    def keep(tree: Tree) -> Tree:
        return tree_map(lambda leaf: leaf[mx.array([_checked_index(i, leaf.shape[0]) for i in indices])], tree)

    return keep


def of_one(opt_state: State) -> State:
    """Return a state as a step alone has it, without the settings."""
    return {name: entry for name, entry in opt_state.items() if name != SETTINGS or "optimizer" not in opt_state}


def _for_each(name: str, value: object, count: int) -> list[Any]:
    """Return a value for each member: of a seed the following ones, of a list its entries."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value + i for i in range(count)]
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise ValueError(f"{name} has {len(value)} entries for {count} members")
        return list(value)
    return [value] * count


def _checked_index(index: int, count: int) -> int:
    """Return the index of a member; raise IndexError where there is none."""
    if not 0 <= index < count:
        raise IndexError(f"there are members 0 to {count - 1}; got {index!r}")
    return index
