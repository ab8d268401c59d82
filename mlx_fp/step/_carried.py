"""Parameters and optimiser state in few arrays, so that a step of a small model takes few of them and gives few.

MLX's price for an array is that of a kernel, and a call of a compiled function takes and gives every leaf of its trees.
Here small leaves of like shape lie in one array, as `together` puts them, from one step to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..compile._compiled import Compiled
from ..core._mlx import mx
from ..core._types import Array, Batch, Params, State, Tree
from ..cpu._grouping import lying, sharing, split, whole
from ..tree._flattening import Structure, structure
from ..tree._paths import fresh

__all__ = ["Packed", "Packing"]

Pair = tuple[Params, State]
Stepping = Callable[[Params, State, Batch], tuple[Params, State, State]]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Packed:
    """Where training stands, in few arrays; made by `Step.pack` and `Step.packed`."""

    arrays: Any
    """A list of arrays, or the trees themselves where nothing lies together."""
    layout: Layout | None = None

    @property
    def params(self) -> Params:
        """The parameters and buffers, taken apart."""
        return self._tree(0)

    @property
    def opt_state(self) -> State:
        """The random stream, the optimiser's state, and the memory of metrics, taken apart."""
        state: State = self._tree(1)
        return state

    def _tree(self, which: int) -> Tree:
        if self.layout is None:
            return self.arrays[which]
        tree = self.layout.apart(self.arrays)[which]
        with suppress(RuntimeError):  # what cannot be computed is an error where it is read
            mx.async_eval(tree)  # what is only asked for cannot be computed in another thread
        return tree


class Layout:
    """How the arrays of trees of one structure lie in fewer: which, in tree order, are in each."""

    __slots__ = ("_known", "_places", "_shapes")

    def __init__(self, known: Structure, arrays: Sequence[Array], places: Sequence[Sequence[int]]) -> None:
        self._known, self._places, self._shapes = known, places, _shapes(arrays)

    @property
    def pays(self) -> bool:
        """Whether there are half as many arrays, or fewer."""
        return 2 * len(self._places) <= len(self._shapes)

    def fits(self, params: Params, opt_state: State) -> list[Array] | None:
        """List the arrays of trees of this structure and these shapes; None for others."""
        arrays = self._known.flatten(params, opt_state)
        return arrays if arrays is not None and _shapes(arrays) == self._shapes else None

    def together(self, params: Params, opt_state: State) -> list[Array] | None:
        """Put the arrays together, where they fit."""
        arrays = self.fits(params, opt_state)
        return None if arrays is None else [whole([arrays[i] for i in place]) for place in self._places]

    def apart(self, wholes: Sequence[Array]) -> Pair:
        """Take what was put together apart, lazily."""
        arrays: dict[int, Array] = {}
        for place, one in zip(self._places, wholes, strict=True):
            lengths = [1] if len(place) == 1 else [self._shapes[i][0][0] for i in place]
            arrays |= zip(place, split(one, lengths), strict=True)
        params, opt_state = self._known.build([arrays[i] for i in range(len(arrays))])
        return params, opt_state


class Packing:
    """Finds how parameters and optimiser state lie best, and takes steps on them so; each layout is compiled once."""

    __slots__ = ("_compiled", "_divide", "_steps")

    def __init__(
        self, step: Stepping, divide: Callable[[Params], tuple[Params, Params]], compiled: Callable[..., Compiled]
    ) -> None:
        def made(layout: Layout | None) -> Compiled:
            return compiled(partial(_steps, step, layout), "state", "batches")

        self._divide, self._compiled = divide, made
        self._steps: dict[Layout | None, Compiled] = {None: made(None)}

    @property
    def traces(self) -> int:
        """How often steps have been traced, over all layouts."""
        return sum(steps.traces for steps in self._steps.values())

    def pack(self, params: Params, opt_state: State) -> Packed:
        """Put small arrays of like shape together, where that leaves half of the arrays or fewer."""
        known = (layout for layout in self._steps if layout is not None and layout.fits(params, opt_state) is not None)
        layout = next(known, None) or self._layout(params, opt_state)
        arrays = layout.together(params, opt_state)
        if arrays is not None and layout not in self._steps:
            self._steps[layout] = self._compiled(layout)
        if arrays is None or not layout.pays:  # a dict of another class has no layout
            return Packed((params, opt_state))
        mx.async_eval(arrays)
        return Packed(arrays, layout)

    def steps(self, state: Packed, batches: Sequence[Batch]) -> tuple[Packed, tuple[State, ...]]:
        """Take a step on each batch in one compiled call."""
        if state.layout not in self._steps:  # it is of another step
            state = self.pack(state.params, state.opt_state)
        arrays, trees, logs = self._steps[state.layout](state.arrays, tuple(batches))
        return Packed(trees) if arrays is None else Packed(arrays, state.layout), logs

    def _layout(self, params: Params, opt_state: State) -> Layout:
        params, opt_state = fresh(params), fresh(opt_state)  # no two leaves are one object
        known = structure(params, opt_state, names=("params", "opt_state"))
        arrays = known.flatten(params, opt_state) or []
        at = {id(array): i for i, array in enumerate(arrays)}
        kept, _ = self._divide(params)
        places = [[at.pop(id(array)) for array in lie] for lie in lying(kept, *_over(opt_state["optimizer"], kept))]
        places += [[i] for i in at.values()]
        return Layout(known, arrays, places)


@sharing
def _steps(step: Stepping, layout: Layout | None, state: Any, batches: tuple[Batch, ...]) -> tuple[Any, Any, Any]:
    """Take steps on a state that lies so: its arrays then, or the trees where they do not fit, and the logs."""
    params, opt_state = state if layout is None else layout.apart(state)
    logged = []
    for batch in batches:
        params, opt_state, logs = step(params, opt_state, batch)
        logged.append(logs)
    arrays = None if layout is None else layout.together(params, opt_state)
    return arrays, (params, opt_state) if arrays is None else None, tuple(logged)


def _shapes(arrays: Sequence[Array]) -> list[tuple[Any, Any]]:
    return [(array.shape, array.dtype) for array in arrays]


def _over(state: Tree, params: Params) -> list[Tree]:
    """List the trees in a state that hold something for each parameter, or for some."""
    if isinstance(params, dict) and _fits(state, params):
        return [state]
    children = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tree for child in children for tree in _over(child, params)]


def _fits(state: Tree, params: Params) -> bool:
    if isinstance(params, mx.array):
        held = state.values() if isinstance(state, dict) else [state]
        return all(isinstance(leaf, mx.array) for leaf in held)
    if isinstance(params, dict) and isinstance(state, dict):
        return params.keys() == state.keys() and all(_fits(state[key], params[key]) for key in params)
    if isinstance(params, (list, tuple)) and isinstance(state, (list, tuple)):
        return len(params) == len(state) and all(map(_fits, state, params))
    return False
