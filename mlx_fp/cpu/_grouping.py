"""Concatenate small leaves of like shape, so that one kernel computes all of them.

Concatenating leaves costs about as much as their kernels. So it pays only where several stages of an update, or several
steps, are one compiled function: the array that one stage split is known to the next, and is not concatenated again.
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


class Wholes:
    """The arrays that were split or concatenated in one trace, found by their parts."""

    def __init__(self) -> None:
        self._of: dict[int, Whole] = {}  # by the id of a part; the parts are kept, so that their ids stay theirs

    def find(self, part: Any) -> Array | None:
        """Return the array that `part` is a part of, None where it is none."""
        whole, _ = self._of.get(id(part), (None, []))
        return whole

    def join(self, parts: list[Array]) -> Array:
        """Return the array of which these are the parts, or concatenate them."""
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
        parts: list[Array] = mx.split(whole, list(accumulate(lengths))[:-1])  # type: ignore[assignment]
        self._remember(whole, parts)
        return parts

    def forget(self) -> None:
        """Forget all parts, because something has written over some of them."""
        self._of.clear()

    def _remember(self, whole: Array, parts: list[Array]) -> Array:
        self._of |= {id(part): (whole, parts) for part in parts}
        return whole


_wholes: ContextVar[Wholes | None] = ContextVar("wholes", default=None)
"""What has been split in the trace at hand; None where leaves are not grouped."""


def current_wholes() -> Wholes:
    """Return the wholes of the trace at hand, and group leaves from now on; outside a trace, new ones each time."""
    wholes = _wholes.get() or Wholes()
    if in_use() is not PLAIN:
        _wholes.set(wholes)
    return wholes


def update(fn: Update, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
    """Compute an optimiser's update, its small leaves grouped where it has several stages or the state is packed.

    An update that writes over arrays in place, as `p -= …` does, is computed leaf by leaf: the whole of a part that was
    written over is out of date. The library's own updates never do so; that of a user is traced once more to see.
    """
    if _wholes.get() is None and not _has_stages(state):
        return fn(grads, state, params)
    wholes = _wholes.get() or Wholes()
    leaf_by_leaf = not _is_ours(fn) and writes_in_place(fn, grads, state, params)
    if leaf_by_leaf:
        wholes.forget()
    result: tuple[Params, State] = _within(None if leaf_by_leaf else wholes, fn, grads, state, params)
    return result


def grouped(tree: Tree, *rest: Tree) -> tuple[tuple[Tree, ...], Callable[[Any], Tree]]:
    """Return trees with small leaves of like shape concatenated, and how to split results of them; see `Backend`.

    >>> halves = [mx.array([1.0]), mx.array([2.0, 3.0])]
    >>> (leaves,), ungroup = _within(Wholes(), grouped, halves)
    >>> [leaf.tolist() for leaf in leaves], [leaf.tolist() for leaf in ungroup([2 * leaf for leaf in leaves])]
    ([[1.0, 2.0, 3.0]], [[2.0], [4.0, 6.0]])
    """
    wholes = _wholes.get()
    if wholes is None:
        return (tree, *rest), lambda result: result
    groups, leaves = _grouped(wholes, tree, *rest)
    joined = [[_join(wholes, [leaves[i][which] for i in group]) for group in groups] for which in range(1 + len(rest))]

    def ungroup(results: list[Any]) -> Tree:
        found: dict[int, Any] = {}
        for group, result in zip(groups, results, strict=True):
            found |= zip(group, _split(wholes, result, [leaves[i][0] for i in group]), strict=True)
        order = iter(range(len(leaves)))
        return utils.tree_map(lambda _: found[next(order)], tree)

    return tuple(joined), ungroup


def groups_of(tree: Tree, *rest: Tree) -> list[list[Array]]:
    """List the arrays that `grouped` concatenates into one, for each array that it makes.

    >>> weight, bias, momentum = mx.zeros((2,)), mx.zeros((3,)), mx.zeros((2,))
    >>> lists = groups_of({"weight": weight, "bias": bias}, {"weight": {"v": momentum}, "bias": {}})
    >>> [[array.size for array in group] for group in lists]
    [[2], [2], [3]]
    """
    groups, leaves = _grouped(Wholes(), tree, *rest)
    found = []
    for group in groups:
        for leaf in zip(*(leaves[i] for i in group), strict=True):
            found += [[one[key] for one in leaf] for key in leaf[0]] if isinstance(leaf[0], dict) else [list(leaf)]
    return found


def writes_in_place(fn: Update, grads: Tree, state: State, params: Params) -> bool:
    """Tell whether an update writes over arrays that it is given, by tracing it once: nothing is computed.

    >>> def descend(grads, state, params):
    ...     params["w"] -= grads["w"]
    ...     return params, state
    >>> writes_in_place(descend, {"w": mx.array(1.0)}, {}, {"w": mx.array(1.0)})
    True
    """
    trees = (grads, state, params)
    build, found = builder(trees), list[bool]()

    def probe(inputs: list[Array]) -> list[Array]:
        tracers = list(inputs)
        rng.run(0, lambda: fn(*build(tracers)))
        graph = io.StringIO()
        mx.export_to_dot(graph, tracers)  # an input of a trace has no operation before it, unless it was written over
        found.append("label" in graph.getvalue())
        return []

    _within(None, mx.compile(probe), list_arrays(trees))
    return found[0]


def _within(wholes: Wholes | None, fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function with these wholes in a context of its own, so that an interrupt leaves nothing behind."""

    def run() -> Any:
        _wholes.set(wholes)
        return fn(*args)

    return copy_context().run(run)


def _is_ours(fn: Update) -> bool:
    return getattr(fn, "__module__", "").partition(".")[0] == __name__.partition(".")[0]


def _has_stages(state: Any) -> bool:
    """Tell whether a state is that of an optimiser inside another, or of groups of which one is."""
    if not isinstance(state, dict):
        return False
    return "inner" in state or any(map(_has_stages, state.get("groups", ())))


def _grouped(wholes: Wholes, tree: Tree, *rest: Tree) -> tuple[list[list[int]], list[tuple[Any, ...]]]:
    """Return which leaves go together, by their numbers, and the leaves of all trees.

    Parts of one whole stay together; other small leaves go together by dtype and shape of their rows.
    """
    groups: dict[Any, list[int]] = {}
    leaves: list[tuple[Any, ...]] = []

    def listed(path: str, *each: Any) -> None:
        members = [array for leaf in each for array in (leaf.values() if isinstance(leaf, dict) else (leaf,))]
        fits = each[0].ndim and each[0].size <= GROUPED_ELEMENTS
        fits = fits and all(member.shape == each[0].shape for member in members)
        whole = next((id(found) for member in members if (found := wholes.find(member)) is not None), None)
        key = (whole, str([_kind(leaf) for leaf in each])) if fits else path
        groups.setdefault(key, []).append(len(leaves))
        leaves.append(each)

    utils.tree_map_with_path(listed, tree, *rest)
    return [part for group in groups.values() for part in chunked(group, GROUPED_LEAVES)], leaves


def _kind(leaf: Any) -> Any:
    return {k: _kind(v) for k, v in leaf.items()} if isinstance(leaf, dict) else (leaf.dtype, leaf.shape[1:])


def _join(wholes: Wholes, leaves: list[Any]) -> Any:
    if isinstance(leaves[0], dict):
        return {key: wholes.join([leaf[key] for leaf in leaves]) for key in leaves[0]}
    return wholes.join(leaves)


def _split(wholes: Wholes, result: Any, like: list[Array]) -> list[Any]:
    lengths = [leaf.shape[0] if leaf.ndim else 1 for leaf in like]
    if not isinstance(result, dict):
        return wholes.split(result, lengths)
    parts = {key: wholes.split(value, lengths) for key, value in result.items()}
    return [dict(zip(parts, each, strict=True)) for each in zip(*parts.values(), strict=True)] or [{} for _ in like]
