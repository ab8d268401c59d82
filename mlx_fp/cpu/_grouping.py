"""Small leaves of like shape in one array, so that an update takes one kernel for all of them.

Putting leaves together costs about what their kernels do, so it pays only where several steps are one compiled
function: there what was taken apart after one step is known, whole, to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from itertools import accumulate
from typing import Any, TypeVar

from more_itertools import chunked

from ..core._mlx import mx, on_cpu, utils
from ..core._types import Array, Tree

__all__ = ["elementwise", "lying", "sharing", "split", "together", "whole"]

SMALL = 4096
"""The elements up to which a leaf is computed faster with others than by itself."""

MOST = 32
"""How many leaves are put together at most: what MLX does for an array of parts grows with their square."""

T = TypeVar("T")
Back = Callable[[Any], Tree]


class _Known:
    """The arrays that were taken apart, by their parts; holding the parts keeps their ids theirs."""

    def __init__(self) -> None:
        self.wholes: dict[int, tuple[Array, list[Array]]] = {}

    def whole(self, parts: list[Array]) -> Array:
        """Return the array that these are the parts of, or put them together."""
        if len(parts) == 1:
            return parts[0]
        whole, siblings = self.wholes.get(id(parts[0]), (None, []))
        if whole is not None and list(map(id, siblings)) == list(map(id, parts)):
            return whole
        return mx.concatenate(parts)

    def parts(self, whole: Array, lengths: Sequence[int]) -> list[Array]:
        """Take an array apart along its first axis, and keep in mind what it was."""
        if len(lengths) == 1:
            return [whole]
        siblings: list[Array] = mx.split(whole, list(accumulate(lengths))[:-1])  # type: ignore[assignment]
        self.wholes |= {id(part): (whole, siblings) for part in siblings}
        return siblings


_known: ContextVar[_Known | None] = ContextVar("known", default=None)


def sharing(fn: Callable[..., T]) -> Callable[..., T]:
    """Make `together` put small leaves together wherever `fn`, of one trace, calls it; on CPUs, where it was measured.

    A call has a context of its own, so that an interrupt leaves nothing behind, wherever it comes.
    """

    def shared(*args: Any) -> T:
        return copy_context().run(_within, fn, args) if on_cpu() else fn(*args)

    return shared


def elementwise(fn: Callable[..., Any], tree: Tree, *rest: Tree, by_name: bool = False) -> Tree:
    """Map a function of elements over the leaves of trees, as `tree_map` does.

    >>> negative = sharing(lambda tree: elementwise(mx.negative, tree))
    >>> [leaf.tolist() for leaf in negative([mx.array([1]), mx.array([2, 3])])]
    [[-1], [-2, -3]]
    """
    trees, back = together(tree, *rest, by_name=by_name)
    return back(utils.tree_map(fn, *trees))


def together(tree: Tree, *rest: Tree, by_name: bool = False) -> tuple[tuple[Tree, ...], Back]:
    """Return trees for functions of elements, and how to give what they return the structure of `tree`.

    Small leaves with rows of one shape go together; `by_name` only those of one name, as in a tree of moments, where
    the first are for one update and the second for another. A leaf of `tree` may be a dict of arrays of its shape in
    the other trees. Outside `sharing` nothing changes.
    """
    known = _known.get()
    if known is None:
        return (tree, *rest), lambda result: result
    places, leaves = _placed(tree, *rest, by_name=by_name)
    lists = [[_whole(known, [leaves[i][which] for i in pack]) for pack in places] for which in range(1 + len(rest))]

    def back(results: list[Any]) -> Tree:
        found: dict[int, Any] = {}
        for pack, result in zip(places, results, strict=True):
            found |= zip(pack, _parts(known, result, [leaves[i][0] for i in pack]), strict=True)
        order = iter(range(len(leaves)))
        return utils.tree_map(lambda _: found[next(order)], tree)

    return tuple(lists), back


def lying(tree: Tree, *rest: Tree) -> list[list[Array]]:
    """List the arrays of which `together` makes one each.

    >>> weight, bias, momentum = mx.zeros((2,)), mx.zeros((3,)), mx.zeros((2,))
    >>> lists = lying({"weight": weight, "bias": bias}, {"weight": {"v": momentum}, "bias": {}})
    >>> [[array.size for array in one] for one in lists]
    [[2], [2], [3]]
    """
    places, leaves = _placed(tree, *rest)
    found = []
    for pack in places:
        for leaf in zip(*(leaves[i] for i in pack), strict=True):
            found += [[one[key] for one in leaf] for key in leaf[0]] if isinstance(leaf[0], dict) else [list(leaf)]
    return found


def whole(parts: list[Array]) -> Array:
    """Put arrays together; what was taken apart within `sharing` is what it was."""
    return (_known.get() or _Known()).whole(parts)


def split(whole: Array, lengths: Sequence[int]) -> list[Array]:
    """Take an array apart along its first axis; within `sharing` it is kept in mind."""
    return (_known.get() or _Known()).parts(whole, lengths)


def _placed(tree: Tree, *rest: Tree, by_name: bool = False) -> tuple[list[list[int]], list[tuple[Any, ...]]]:
    """Return which leaves go together, by their numbers, and the leaves of all trees."""
    packs: dict[Any, list[int]] = {}
    leaves: list[tuple[Any, ...]] = []

    def listed(path: str, *each: Any) -> None:
        arrays = [array for leaf in each for array in (leaf.values() if isinstance(leaf, dict) else (leaf,))]
        fits = each[0].ndim and each[0].size <= SMALL and all(one.shape == each[0].shape for one in arrays)
        name = path.rpartition(".")[2] if by_name else ""
        packs.setdefault((name, str([_kind(leaf) for leaf in each])) if fits else path, []).append(len(leaves))
        leaves.append(each)

    utils.tree_map_with_path(listed, tree, *rest)
    return [part for pack in packs.values() for part in chunked(pack, MOST)], leaves


def _within(fn: Callable[..., T], args: tuple[Any, ...]) -> T:
    _known.set(_known.get() or _Known())
    return fn(*args)


def _kind(leaf: Any) -> Any:
    return {k: _kind(v) for k, v in leaf.items()} if isinstance(leaf, dict) else (leaf.dtype, leaf.shape[1:])


def _whole(known: _Known, leaves: list[Any]) -> Any:
    if isinstance(leaves[0], dict):
        return {key: known.whole([leaf[key] for leaf in leaves]) for key in leaves[0]}
    return known.whole(leaves)


def _parts(known: _Known, whole: Any, like: list[Array]) -> list[Any]:
    lengths = [leaf.shape[0] if leaf.ndim else 1 for leaf in like]
    if not isinstance(whole, dict):
        return known.parts(whole, lengths)
    parts = {key: known.parts(value, lengths) for key, value in whole.items()}
    return [dict(zip(parts, each, strict=True)) for each in zip(*parts.values(), strict=True)] or [{} for _ in like]
