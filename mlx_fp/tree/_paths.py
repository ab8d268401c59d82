"""Partition and merge trees, and read and replace leaves by their paths, with `mlx.utils`.

A tree is a plain dict, list or tuple of arrays. A hole is an empty dict in the place of a leaf that another tree has.
So both parts of a partition keep the containers and the key order of the original tree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..core._errors import nearest
from ..core._mlx import mx, utils
from ..core._types import Array, Tree
from ._merging import merge
from ._select import Select, select
from ._strict import must_match

__all__ = [
    "copy_arrays",
    "divided",
    "flat",
    "leaves",
    "merge",
    "norm",
    "partition",
    "paths",
    "restore_like",
    "same_structure",
    "size",
    "swap",
]

tree_flatten, tree_map, tree_map_with_path = utils.tree_flatten, utils.tree_map, utils.tree_map_with_path


def partition(spec: object) -> Callable[[Tree], tuple[Tree, Tree]]:
    """Split a tree into two trees of the same structure: the leaves that `spec` selects, and all other leaves.

    `merge` is the inverse.

    Args:
        spec: The selection, as `select` takes it. For example, a path or an `re.Pattern`.

    Returns:
        A function `tree -> (selected, rest)`. A hole, `{}`, replaces each leaf that the other tree has.

    Raises:
        KeyError: A path in the spec matches no leaf, and the spec is not from `select(spec, strict=False)`. The
            function raises it, with the nearest paths.

    >>> selected, rest = partition("a")({"a": 1, "b": [2, 3]})
    >>> selected, rest
    ({'a': 1, 'b': [{}, {}]}, {'a': {}, 'b': [2, 3]})
    """
    chosen = select(spec)

    def split(tree: Tree) -> tuple[Tree, Tree]:
        must_match(chosen, _leaves_with_paths(tree), "leaf", paths_only=True)
        return divided(chosen)(tree)

    return split


def divided(chosen: Select) -> Callable[[Tree], tuple[Tree, Tree]]:
    """Split a tree as `partition` does, without an error for a selection that selects no leaf."""

    def split(tree: Tree) -> tuple[Tree, Tree]:
        selected = tree_map_with_path(lambda path, leaf: leaf if chosen(path, leaf) else {}, tree, path="")
        rest = tree_map_with_path(lambda path, leaf: {} if chosen(path, leaf) else leaf, tree, path="")
        return selected, rest

    return split


def paths(spec: object = None) -> Callable[[Tree], tuple[str, ...]]:
    """List the dotted paths of the leaves that `spec` selects, in tree order.

    Args:
        spec: The selection, as `select` takes it. Default: all leaves.

    Returns:
        A function `tree -> paths`.

    >>> paths()({"layers": [{"weight": 1}, {}, {"bias": 2}]})
    ('layers.0.weight', 'layers.2.bias')
    """
    chosen = select(spec)
    return lambda tree: tuple(path for path, leaf in _leaves_with_paths(tree) if chosen(path, leaf))


def leaves(tree: Tree) -> list[Any]:
    """List the leaves of a tree in tree order.

    >>> leaves({"a": 1, "b": [{}, (2, 3)]})
    [1, 2, 3]
    """
    return [leaf for _, leaf in _leaves_with_paths(tree)]


def flat(tree: Tree) -> dict[str, Any]:
    """Return the leaves of a tree in a dict, by their dotted paths. `restore_like` is the inverse.

    Args:
        tree: The tree.

    Returns:
        A dict `{path: leaf}` in tree order.

    Raises:
        ValueError: Two leaves have the same path, because a key contains a dot.

    >>> flat({"a": [1, {"b": 2}]})
    {'a.0': 1, 'a.1.b': 2}
    """
    pairs = _leaves_with_paths(tree)
    by_path = dict(pairs)
    if len(by_path) < len(pairs):
        raise ValueError(f"two leaves have one path: {[p for i, (p, _) in enumerate(pairs) if p in dict(pairs[:i])]}")
    return by_path


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


def copy_arrays(tree: Tree) -> Tree:
    """Copy the containers and the array objects of a tree, so that changes in place do not reach the original.

    >>> tree = {"w": mx.array(1)}
    >>> copied = copy_arrays(tree)
    >>> copied["w"] += 1
    >>> tree["w"].item(), copied["w"].item()
    (1, 2)
    """
    return tree_map(lambda leaf: leaf.astype(leaf.dtype) if isinstance(leaf, mx.array) else leaf, tree)


def swap(path: str, value: Array | float) -> Callable[[Tree], Tree]:
    """Replace the leaf at `path`. The original tree does not change.

    Use this for hyperparameters in the state of an optimiser. A compiled step does not retrace after such a change.

    Args:
        path: The dotted path of the leaf.
        value: A number or an array with the shape of the leaf. It is cast to the dtype of the leaf.

    Returns:
        A function `tree -> tree`. It raises KeyError, with the nearest paths, where the tree has no such leaf. It
        raises ValueError where the shapes differ.

    >>> state = {"optimizer": {"learning_rate": mx.array(0.1)}}
    >>> round(swap("optimizer.learning_rate", 0.5)(state)["optimizer"]["learning_rate"].item(), 3)
    0.5
    """

    def swapped(tree: Tree) -> Tree:
        _require_path(path, paths()(tree))
        return tree_map_with_path(lambda p, leaf: _converted(value, leaf, p) if p == path else leaf, tree, path="")

    return swapped


def restore_like(template: Tree, named: Mapping[str, Any]) -> Tree:
    """Rebuild a tree from leaves by path, with the containers and the key order of a template.

    This is the inverse of `flat`. `mlx.utils.tree_unflatten` would turn tuples into lists and drop empty containers.

    Args:
        template: A tree with the wanted structure.
        named: The leaves by dotted path.

    Returns:
        The tree.

    Raises:
        KeyError: A leaf of the template is missing, or the template has no such path.
        ValueError: An array has another shape than the array of the template.

    >>> restore_like({"a": (0, {}), "b": 0}, {"b": 2, "a.0": 1})
    {'a': (1, {}), 'b': 2}
    """
    template_leaves = flat(template)
    for path in template_leaves:
        _require_path(path, named)
    for path in named:
        _require_path(path, template_leaves)

    def checked_leaf(path: str, leaf: object) -> object:
        expected, actual = getattr(leaf, "shape", None), getattr(named[path], "shape", None)
        if expected is not None and actual is not None and tuple(expected) != tuple(actual):
            raise ValueError(f"the leaf at {path!r} has shape {tuple(expected)}; got {tuple(actual)}")
        return named[path]

    return tree_map_with_path(checked_leaf, template, path="")


def same_structure(tree: Tree, other: Tree) -> bool:
    """Tell whether two trees have the same containers, keys and lengths. A tuple and a list count as the same.

    >>> same_structure({"a": [1, {}]}, {"a": (2, {})}), same_structure({"a": {"b": 1}}, {"a.b": 1})
    (True, False)
    """
    if isinstance(tree, dict) and isinstance(other, dict):
        return tree.keys() == other.keys() and all(same_structure(tree[key], other[key]) for key in tree)
    if isinstance(tree, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(tree) == len(other) and all(map(same_structure, tree, other))
    return not any(isinstance(node, (dict, list, tuple)) for node in (tree, other))


def _leaves_with_paths(tree: Tree) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = tree_flatten(tree)  # type: ignore[assignment]  # it returns a dict on request only
    return pairs


def _require_path(path: str, candidates: Collection[str]) -> None:
    if path not in candidates:
        similar = nearest(path, candidates)
        raise KeyError(f"no leaf at {path!r}; nearest: {', '.join(similar) or 'none'}")


def _converted(value: Array | float, leaf: Array, path: str) -> Array:
    """Return a value as an array of the leaf's dtype. An array of another shape raises ValueError."""
    new = mx.array(value, dtype=leaf.dtype) if not isinstance(value, mx.array) else value.astype(leaf.dtype)
    if new.shape != leaf.shape:
        raise ValueError(f"the leaf at {path!r} has shape {leaf.shape}; got {new.shape}")
    return new
