"""Update each parameter as soon as its gradient is there, so that not all gradients are in memory at once.

The gradient of a parameter passes through a function that updates the parameter. The gradient that goes on from a
recomputed part (`nn.remat`) to the part before it depends on the update, so the update comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..compile._recomputed import awaited, observed
from ..core._errors import unknown
from ..core._mlx import utils
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ..optim._optimizer import Optimizer
from ..optim._state import state_of
from ..tree._paths import divided, flat, leaves
from ..tree._select import Select

__all__ = ["Updates", "check_update"]

_UPDATES = ("at_end", "in_backward")
"""The values of the option `update` of a step."""

tree_map_with_path = utils.tree_map_with_path


def check_update(update: object, optimizer: Optimizer, changes: Mapping[str, bool]) -> None:
    """Raise ValueError for an unknown update, and for one in the backward pass that needs all gradients at once.

    `changes` are options that change the gradients of a batch, and whether they are given.
    """
    if update not in _UPDATES:
        raise ValueError(unknown("update", str(update), _UPDATES))
    if update == "at_end":
        return
    for name, is_given in changes.items():
        if is_given:
            raise ValueError(f'update="in_backward" takes the gradients of a whole batch; {name} changes them after')
    if not optimizer.by_leaf:
        wrappers = [name for name in ("clip_norm", "skip_nonfinite") if f"{name}(" in optimizer.name]
        reason = f"{wrappers[0]} needs all gradients" if wrappers else "it may need all gradients (by_leaf is False)"
        raise ValueError(f'update="in_backward" updates each parameter alone, and in {optimizer!r} {reason}')


class Updates:
    """The updates of one step. Each is computed when the gradient of its parameter arrives."""

    def __init__(self, optimizer: Optimizer, state: State, trainable: Params) -> None:
        self._optimizer, self._state, self._trainable = optimizer, state, trainable
        self._params: dict[str, Array] = {}
        self._states: dict[str, Array] = {}

    def observing(self, trainable: Params) -> Params:
        """Return the same parameters; each is updated when its gradient arrives."""
        return tree_map_with_path(lambda path, leaf: observed(partial(self._arrived, path), leaf), trainable, path="")

    def finish(self, grads: Tree) -> tuple[Params, State]:
        """Update the parameters whose gradients did not arrive, because nothing depends on them: `(params, state)`."""
        arrived = frozenset(self._params)
        late = Select(lambda path, leaf: path not in arrived, "late")
        self._update(late, divided(late)(grads)[0])
        params: Params = tree_map_with_path(lambda path, _: self._params[path], self._trainable, path="")
        state: State = tree_map_with_path(lambda path, leaf: self._states.get(path, leaf), self._state, path="")
        return params, state

    def _arrived(self, path: str, gradient: Array) -> Array:
        chosen = Select(lambda at, leaf: at == path, path)
        grads = tree_map_with_path(lambda at, _: gradient if at == path else {}, self._trainable, path="")
        awaited(self._update(chosen, grads))
        return gradient

    def _update(self, chosen: Select, grads: Tree) -> list[Array]:
        """Update the chosen parameters; return the arrays of the update."""
        params = divided(chosen)(self._trainable)[0]
        if not flat(params):
            return []
        grads = utils.tree_map(lambda p, g: g.astype(p.dtype), params, grads)
        after, state = in_use().update(self._optimizer.update, grads, state_of(self._state, chosen), params)
        self._params |= flat(after)
        self._states |= flat(state)
        return [*leaves(after), *leaves(state)]
