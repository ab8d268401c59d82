"""Concatenate small leaves of similar shape into groups, so that one kernel computes a whole group.

To concatenate leaves costs about as much as their kernels. So it pays only if several stages of an update, or several
steps, are in one compiled function. There, the array that one stage splits is remembered, and the next stage uses it
again without a concatenation. For example, `clip_norm` around `adamw` is two stages.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from itertools import accumulate
from typing import Any

from more_itertools import chunked

from ..compile import rng
from ..core._mlx import mx, utils
from ..core._types import Array, Params, State, Tree
from ..core.backend import PLAIN, Update, in_use
from ..tree._flattening import builder, list_arrays
from ._thresholds import GROUPED_ELEMENTS, GROUPED_LEAVES

__all__ = ["Wholes", "current_wholes", "grouped", "groups_of", "update", "writes_in_place"]

Whole = tuple[Array, list[Array]]
"""A concatenated array and its parts, in order."""


class Wholes:
    """The arrays that were split or concatenated in one trace. Each part leads to its whole."""

    def __init__(self) -> None:
        self._of: dict[int, Whole] = {}  # by the id of a part; the parts are kept alive, so that their ids stay unique

    def find(self, part: object) -> Array | None:
        """Return the whole array of a part, or None for an array that is no part."""
        whole, _ = self._of.get(id(part), (None, []))
        return whole

    def join(self, parts: list[Array]) -> Array:
        """Return the remembered whole of these parts, or concatenate them."""
        if len(parts) == 1:
            return parts[0]
        whole, siblings = self._of.get(id(parts[0]), (None, []))
        if whole is not None and list(map(id, siblings)) == list(map(id, parts)):
            return whole
        return self._remember(mx.concatenate(parts), parts)

    def split(self, whole: Array, lengths: Sequence[int]) -> list[Array]:
        """Split an array along its first axis, and remember its parts."""
        if len(lengths) == 1:
            return [whole]
        parts: list[Array] = mx.split(whole, list(accumulate(lengths))[:-1])  # type: ignore[assignment]  # it is a list
        self._remember(whole, parts)
        return parts

    def forget(self) -> None:
        """Forget all parts, because a function has written into some of them."""
        self._of.clear()

    def _remember(self, whole: Array, parts: list[Array]) -> Array:
        self._of |= {id(part): (whole, parts) for part in parts}
        return whole


_wholes: ContextVar[Wholes | None] = ContextVar("wholes", default=None)
"""The wholes of the current trace; None if leaves are not grouped."""


def current_wholes() -> Wholes:
    """Return the wholes of the current trace, and group leaves from now on. Outside a trace they are new each time."""
    wholes = _wholes.get() or Wholes()
    if in_use() is not PLAIN:
        _wholes.set(wholes)
    return wholes


def update(fn: Update, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
    """Compute an optimiser's update. Small leaves are grouped if it has several stages or the state is packed.

    An update that writes into its arrays, as `p -= …` does, is computed leaf by leaf, because such a write makes the
    whole of a part out of date. The library's own updates never write into their arrays. A user's update is traced once
    more to find out.
    """
    if _wholes.get() is None and not _has_stages(state):
        return fn(grads, state, params)
    wholes = _wholes.get() or Wholes()
    leaf_by_leaf = not _is_ours(fn) and writes_in_place(fn, grads, state, params)
    if leaf_by_leaf:
        wholes.forget()
    result: tuple[Params, State] = _with_wholes(None if leaf_by_leaf else wholes, fn, grads, state, params)
    return result


def grouped(tree: Tree, *rest: Tree) -> tuple[tuple[Tree, ...], Callable[[Any], Tree]]:
    """Return trees with small leaves of similar shape concatenated, and the function that splits a result again.

    `Backend.grouped` defines the contract.

    >>> halves = [mx.array([1.0]), mx.array([2.0, 3.0])]
    >>> (leaves,), ungroup = _with_wholes(Wholes(), grouped, halves)
    >>> [leaf.tolist() for leaf in leaves], [leaf.tolist() for leaf in ungroup([2 * leaf for leaf in leaves])]
    ([[1.0, 2.0, 3.0]], [[2.0], [4.0, 6.0]])
    """
    wholes = _wholes.get()
    if wholes is None:
        return (tree, *rest), lambda result: result
    groups, leaves = _grouped(wholes, tree, *rest)
    joined = [[_join(wholes, [leaves[i][which] for i in group]) for group in groups] for which in range(1 + len(rest))]

    def ungroup(results: list[Any]) -> Tree:
        split: dict[int, Any] = {}
        for group, result in zip(groups, results, strict=True):
            split |= zip(group, _split(wholes, result, [leaves[i][0] for i in group]), strict=True)
        order = iter(range(len(leaves)))
        return utils.tree_map(lambda _: split[next(order)], tree)

    return tuple(joined), ungroup


def groups_of(tree: Tree, *rest: Tree) -> list[list[Array]]:
    """List, for each array that `grouped` makes, the leaves that it concatenates.

    >>> weight, bias, momentum = mx.zeros((2,)), mx.zeros((3,)), mx.zeros((2,))
    >>> lists = groups_of({"weight": weight, "bias": bias}, {"weight": {"v": momentum}, "bias": {}})
    >>> [[array.size for array in group] for group in lists]
    [[2], [2], [3]]
    """
    groups, leaves = _grouped(Wholes(), tree, *rest)
    lists = []
    for group in groups:
        for column in zip(*(leaves[i] for i in group), strict=True):  # the leaves of one tree
            is_dict = isinstance(column[0], dict)
            lists += [[leaf[key] for leaf in column] for key in column[0]] if is_dict else [list(column)]
    return lists


def writes_in_place(fn: Update, grads: Tree, state: State, params: Params) -> bool:
    """Tell whether an update writes into its argument arrays. It is traced once, and nothing is computed.

    >>> def descend(grads, state, params):
    ...     params["w"] -= grads["w"]
    ...     return params, state
    >>> writes_in_place(descend, {"w": mx.array(1.0)}, {}, {"w": mx.array(1.0)})
    True
    """
    trees = (grads, state, params)
    build, verdict = builder(trees), list[bool]()

    def probe(inputs: list[Array]) -> list[Array]:
        tracers = list(inputs)
        rng.run(0, lambda: fn(*build(tracers)))
        graph = io.StringIO()
        mx.export_to_dot(graph, tracers)  # an input of a trace has an operation before it only after a write into it
        verdict.append("label" in graph.getvalue())
        return []

    _with_wholes(None, mx.compile(probe), list_arrays(trees))
    return verdict[0]


def _with_wholes(wholes: Wholes | None, fn: Callable[..., Any], *args: object) -> Any:
    """Call a function with these wholes in a copied context, so that an interrupt cannot leave grouping on."""

    def run() -> Any:
        _wholes.set(wholes)
        return fn(*args)

    return copy_context().run(run)


def _is_ours(fn: Update) -> bool:
    """Tell whether this library defines a function."""
    return getattr(fn, "__module__", "").partition(".")[0] == __name__.partition(".")[0]


def _has_stages(state: object) -> bool:
    """Tell whether a state belongs to a wrapped optimiser, or to groups with a wrapped optimiser among them."""
    if not isinstance(state, dict):
        return False
    return "inner" in state or any(map(_has_stages, state.get("groups", ())))


def _grouped(wholes: Wholes, tree: Tree, *rest: Tree) -> tuple[list[list[int]], list[tuple[Any, ...]]]:
    """Return the groups, as lists of leaf numbers, and for each leaf number the leaves of all trees.

    Parts of one whole stay together. Other small leaves form a group if their dtype and the shape of their rows agree.
    """
    groups: dict[object, list[int]] = {}
    leaves: list[tuple[Any, ...]] = []

    def assign(path: str, *column: Any) -> None:
        members = [array for leaf in column for array in (leaf.values() if isinstance(leaf, dict) else (leaf,))]
        fits = column[0].ndim and column[0].size <= GROUPED_ELEMENTS
        fits = fits and all(member.shape == column[0].shape for member in members)
        whole = next((id(whole) for member in members if (whole := wholes.find(member)) is not None), None)
        key = (whole, str([_kind(leaf) for leaf in column])) if fits else path
        groups.setdefault(key, []).append(len(leaves))
        leaves.append(column)

    utils.tree_map_with_path(assign, tree, *rest)
    return [part for group in groups.values() for part in chunked(group, GROUPED_LEAVES)], leaves


def _kind(leaf: Any) -> Any:
    """Return the dtype and the shape of a row of an array, or a dict of them for a dict of arrays."""
    return {k: _kind(v) for k, v in leaf.items()} if isinstance(leaf, dict) else (leaf.dtype, leaf.shape[1:])


def _join(wholes: Wholes, leaves: list[Any]) -> Any:
    """Concatenate arrays, or dicts of arrays key by key."""
    if isinstance(leaves[0], dict):
        return {key: wholes.join([leaf[key] for leaf in leaves]) for key in leaves[0]}
    return wholes.join(leaves)


def _split(wholes: Wholes, result: Any, like: list[Array]) -> list[Any]:
    """Split an array, or a dict of arrays, into parts with the lengths of `like`."""
    lengths = [leaf.shape[0] if leaf.ndim else 1 for leaf in like]
    if not isinstance(result, dict):
        return wholes.split(result, lengths)
    parts = {key: wholes.split(value, lengths) for key, value in result.items()}
    return [dict(zip(parts, column, strict=True)) for column in zip(*parts.values(), strict=True)] or [{} for _ in like]
