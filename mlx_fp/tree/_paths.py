"""Take trees apart and put them together again, over `mlx.utils`.

A tree is a plain dict, list or tuple of arrays. A hole, the place of a leaf that went to another tree, is an
empty dict, so every part of a partition keeps the shape and the key order of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core._errors import nearest
from ..core._mlx import mx, utils
from ..core._types import Array, Tree
from ._select import Select, select
from ._strict import must_match

__all__ = [
    "alike",
    "divided",
    "flat",
    "fresh",
    "leaves",
    "merge",
    "norm",
    "partition",
    "paths",
    "restore_like",
    "size",
    "swap",
]

tree_flatten, tree_map, tree_map_with_path = utils.tree_flatten, utils.tree_map, utils.tree_map_with_path


def partition(spec: Any) -> Callable[[Tree], tuple[Tree, Tree]]:
    """Split a tree into `(kept, rest)`: the leaves that `spec` chooses and the others, holes between them.

    KeyError, with the nearest, for a path in the spec that is not there, unless it is a `select(spec, strict=False)`.

    >>> kept, rest = partition("a")({"a": 1, "b": [2, 3]})
    >>> kept, rest
    ({'a': 1, 'b': [{}, {}]}, {'a': {}, 'b': [2, 3]})
    """
    chosen = select(spec)

    def split(tree: Tree) -> tuple[Tree, Tree]:
        must_match(chosen, _named(tree), "leaf", paths_only=True)
        return divided(chosen)(tree)

    return split


def divided(chosen: Select) -> Callable[[Tree], tuple[Tree, Tree]]:
    """Split a tree as `partition` does, by a spec that may choose nothing."""

    def split(tree: Tree) -> tuple[Tree, Tree]:
        kept = tree_map_with_path(lambda path, leaf: leaf if chosen(path, leaf) else {}, tree, path="")
        rest = tree_map_with_path(lambda path, leaf: {} if chosen(path, leaf) else leaf, tree, path="")
        return kept, rest

    return split


def merge(*trees: Tree) -> Tree:
    """Put the parts of a partition together: each place takes the leaf of the one tree without a hole there.

    Raise ValueError when two trees have a leaf in the same place, or their containers differ.

    >>> merge({"a": 1, "b": [{}, {}]}, {"a": {}, "b": [2, 3]})
    {'a': 1, 'b': [2, 3]}
    """
    return _merge(trees, "")


def paths(spec: Any = None) -> Callable[[Tree], tuple[str, ...]]:
    """List the dotted paths of the leaves that `spec` chooses, in tree order.

    >>> paths()({"layers": [{"weight": 1}, {}, {"bias": 2}]})
    ('layers.0.weight', 'layers.2.bias')
    """
    chosen = select(spec)
    return lambda tree: tuple(path for path, leaf in _named(tree) if chosen(path, leaf))


def leaves(tree: Tree) -> list[Any]:
    """List the leaves of a tree, in tree order.

    >>> leaves({"a": 1, "b": [{}, (2, 3)]})
    [1, 2, 3]
    """
    return [leaf for _, leaf in _named(tree)]


def flat(tree: Tree) -> dict[str, Any]:
    """Name every leaf by its dotted path. ValueError when a key with a dot gives two leaves one path.

    >>> flat({"a": [1, {"b": 2}]})
    {'a.0': 1, 'a.1.b': 2}
    """
    named = _named(tree)
    found = dict(named)
    if len(found) < len(named):
        raise ValueError(f"two leaves have one path: {[p for i, (p, _) in enumerate(named) if p in dict(named[:i])]}")
    return found


def size(tree: Tree) -> int:
    """Count the elements of all arrays in a tree.

    >>> size({"weight": mx.zeros((3, 2)), "bias": mx.zeros((3,))})
    9
    """
    return sum(leaf.size for leaf in leaves(tree))


def norm(tree: Tree) -> Array:
    """Return the L2 norm over all elements of a tree, a float32 scalar.

    >>> norm({"a": mx.array([3.0]), "b": mx.array([4.0])}).item()
    5.0
    """
    squares = [leaf.astype(mx.float32).square().sum() for leaf in leaves(tree)]
    return mx.sqrt(sum(squares, mx.array(0.0)))


def fresh(tree: Tree) -> Tree:
    """Return the same arrays as other objects, in other containers: what is done to them in place stays there.

    >>> one = {"w": mx.array(1)}
    >>> other = fresh(one)
    >>> other["w"] += 1
    >>> one["w"].item(), other["w"].item()
    (1, 2)
    """
    return tree_map(lambda leaf: leaf.astype(leaf.dtype) if isinstance(leaf, mx.array) else leaf, tree)


def swap(path: str, value: Any) -> Callable[[Tree], Tree]:
    """Return a tree with another leaf at `path`, of the old one's dtype; the tree itself is left alone.

    Made for hyper-parameters in an optimiser's state, which change so without a retrace. Raise KeyError with
    the nearest paths when there is no such leaf, ValueError when the shapes differ.

    >>> state = {"optimizer": {"learning_rate": mx.array(0.1)}}
    >>> round(swap("optimizer.learning_rate", 0.5)(state)["optimizer"]["learning_rate"].item(), 3)
    0.5
    """

    def swapped(tree: Tree) -> Tree:
        _require(path, paths()(tree))
        return tree_map_with_path(lambda p, leaf: _like(value, leaf, p) if p == path else leaf, tree, path="")

    return swapped


def restore_like(template: Tree, named: Mapping[str, Any]) -> Tree:
    """Rebuild a tree of the template's own containers and key order from leaves named by path.

    The inverse of `flat`, given a template, where `mlx.utils.tree_unflatten` would turn tuples into lists and
    drop empty containers. Raise KeyError for a leaf that is missing or has no place, ValueError for an array of another
    shape than the template's.

    >>> restore_like({"a": (0, {}), "b": 0}, {"b": 2, "a.0": 1})
    {'a': (1, {}), 'b': 2}
    """
    wanted = flat(template)
    for path in wanted:
        _require(path, named)
    for path in named:
        _require(path, wanted)

    def found(path: str, leaf: Any) -> Any:
        own, came = getattr(leaf, "shape", None), getattr(named[path], "shape", None)
        if own is not None and came is not None and tuple(own) != tuple(came):
            raise ValueError(f"the leaf at {path!r} has shape {tuple(own)}; got {tuple(came)}")
        return named[path]

    return tree_map_with_path(found, template, path="")


def alike(tree: Tree, other: Tree) -> bool:
    """Tell whether two trees have the same containers, keys and lengths, a tuple being as good as a list.

    >>> alike({"a": [1, {}]}, {"a": (2, {})}), alike({"a": {"b": 1}}, {"a.b": 1})
    (True, False)
    """
    if isinstance(tree, dict) and isinstance(other, dict):
        return tree.keys() == other.keys() and all(alike(tree[key], other[key]) for key in tree)
    if isinstance(tree, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(tree) == len(other) and all(map(alike, tree, other))
    return not any(isinstance(one, (dict, list, tuple)) for one in (tree, other))


def _named(tree: Tree) -> list[tuple[str, Any]]:
    named: list[tuple[str, Any]] = tree_flatten(tree)  # type: ignore[assignment]
    return named


def _require(path: str, known: Any) -> None:
    if path not in known:
        close = nearest(path, known)
        raise KeyError(f"no leaf at {path!r}; nearest: {', '.join(close) or 'none'}")


def _like(value: Any, leaf: Any, path: str) -> Any:
    new = mx.array(value, dtype=leaf.dtype) if not isinstance(value, mx.array) else value.astype(leaf.dtype)
    if new.shape != leaf.shape:
        raise ValueError(f"the leaf at {path!r} has shape {leaf.shape}; got {new.shape}")
    return new


def _hole(tree: Tree) -> bool:
    return isinstance(tree, dict) and not tree


def _merge(trees: tuple[Tree, ...], path: str) -> Tree:
    full = [tree for tree in trees if not _hole(tree)]
    if len(full) <= 1:
        return full[0] if full else {}
    first = full[0]
    if not all(type(t) is type(first) and isinstance(t, (dict, list, tuple)) and len(t) == len(first) for t in full):
        raise ValueError(f"two trees have a leaf, or containers that differ, at {path or 'the root'!r}")
    below = f"{path}." if path else ""
    if isinstance(first, dict):
        _same_keys(full, path)
        return {key: _merge(tuple(t[key] for t in full), f"{below}{key}") for key in first}
    items = [_merge(tuple(t[i] for t in full), f"{below}{i}") for i in range(len(first))]
    return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)


def _same_keys(trees: list[dict[str, Any]], path: str) -> None:
    odd = {key for tree in trees for key in tree if not all(key in other for other in trees)}
    if odd:
        raise ValueError(f"the trees to merge have different keys at {path or 'the root'!r}: {sorted(map(str, odd))}")
