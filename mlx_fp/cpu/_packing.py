"""Keep many small arrays of parameters and optimiser state in a few large arrays from step to step.

On CPUs each array costs about one kernel launch, and a compiled call passes every leaf of its trees in and out. For
example, 100 layers of 8 × 8 with AdamW have 603 arrays, and 27 when they are packed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core._mlx import mx
from ..core._types import Array, Params, State, Tree
from ..tree._flattening import Flattening, flattening, list_arrays
from ._grouping import current_wholes, groups_of
from ._thresholds import MIDDLE_BYTES

__all__ = ["Layout", "form"]


class Layout:
    """A packed form of the state. It knows which leaves of trees of one structure form each array.

    Args:
        structure: the structure of the trees.
        arrays: their leaves, in tree order.
        places: for each packed array, the indices of its leaves in `arrays`.
    """

    __slots__ = ("_places", "_shapes", "_structure")

    def __init__(self, structure: Flattening, arrays: Sequence[Array], places: Sequence[Sequence[int]]) -> None:
        self._structure, self._places, self._shapes = structure, places, _shapes(arrays)

    @property
    def worthwhile(self) -> bool:
        """Whether packing at least halves the number of arrays."""
        return 2 * len(self._places) <= len(self._shapes)

    def join(self, params: Params, opt_state: State) -> list[Array] | None:
        """Concatenate the leaves, or return None for trees of another structure or with other shapes."""
        leaves = self._structure.flatten(params, opt_state)
        if leaves is None or _shapes(leaves) != self._shapes:
            return None
        wholes = current_wholes()
        return [wholes.join([leaves[i] for i in place]) for place in self._places]

    def trees(self, arrays: Sequence[Array]) -> tuple[Params, State]:
        """Split the packed arrays into the leaves of trees, lazily."""
        wholes, leaves = current_wholes(), dict[int, Array]()
        for place, whole in zip(self._places, arrays, strict=True):
            lengths = [1] if len(place) == 1 else [self._shapes[i][0][0] for i in place]
            leaves |= zip(place, wholes.split(whole, lengths), strict=True)
        params, opt_state = self._structure.build([leaves[i] for i in range(len(leaves))])
        return params, opt_state


def form(params: Params, opt_state: State, kept: Params, parameter_bytes: int) -> Layout | None:
    """Return how to pack a state, or None if packing gains nothing: for large models, and for few arrays.

    Args:
        params: all parameters; no two leaves are the same array object.
        opt_state: the state of a step, with the optimiser's state under `optimizer`.
        kept: the parameters that train, the same array objects as in `params`.
        parameter_bytes: the bytes of `kept`.
    """
    if parameter_bytes >= MIDDLE_BYTES:
        return None
    both = flattening(params, opt_state, names=("params", "opt_state"))
    leaves = list_arrays((params, opt_state))
    index_of = {id(leaf): i for i, leaf in enumerate(leaves)}
    groups = groups_of(kept, *_parallel_trees(opt_state["optimizer"], kept))
    places = [[index_of.pop(id(leaf)) for leaf in group] for group in groups]
    layout = Layout(both, leaves, places + [[i] for i in index_of.values()])
    return layout if layout.worthwhile else None


def _shapes(arrays: Sequence[Array]) -> list[tuple[tuple[int, ...], mx.Dtype]]:
    """List the shape and the dtype of each array."""
    return [(array.shape, array.dtype) for array in arrays]


def _parallel_trees(state: Tree, params: Params) -> list[Tree]:
    """List the trees within a state that hold a value for each parameter, or for some parameters."""
    if isinstance(params, dict) and _fits(state, params):
        return [state]
    children = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tree for child in children for tree in _parallel_trees(child, params)]


def _fits(state: Tree, params: Params) -> bool:
    """Tell whether a state has the structure of the parameters, with an array or a dict of arrays for each of them."""
    if isinstance(params, mx.array):
        members = state.values() if isinstance(state, dict) else [state]
        return all(isinstance(leaf, mx.array) for leaf in members)
    if isinstance(params, dict) and isinstance(state, dict):
        return params.keys() == state.keys() and all(_fits(state[key], params[key]) for key in params)
    if isinstance(params, (list, tuple)) and isinstance(state, (list, tuple)):
        return len(params) == len(state) and all(map(_fits, state, params))
    return False
