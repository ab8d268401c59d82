"""Merge the trees of a partition: a hole in one tree takes the leaf of another tree."""

from __future__ import annotations

from ..core._types import Tree

__all__ = ["merge"]


def merge(*trees: Tree) -> Tree:
    """Merge the trees of a partition into one tree. Each position takes the leaf of the one tree without a hole there.

    Args:
        trees: Trees with the same containers.

    Returns:
        The merged tree. A position with a hole in every tree keeps its hole.

    Raises:
        ValueError: Two trees have a leaf at the same path, or their containers differ.

    >>> merge({"a": 1, "b": [{}, {}]}, {"a": {}, "b": [2, 3]})
    {'a': 1, 'b': [2, 3]}
    """
    return _merge(trees, "")


def _is_hole(tree: Tree) -> bool:
    return isinstance(tree, dict) and not tree


def _merge(trees: tuple[Tree, ...], path: str) -> Tree:
    full = [tree for tree in trees if not _is_hole(tree)]
    if len(full) <= 1:
        return full[0] if full else {}
    first = full[0]
    if not all(type(t) is type(first) and isinstance(t, (dict, list, tuple)) and len(t) == len(first) for t in full):
        raise ValueError(f"two trees have a leaf, or containers that differ, at {path or 'the root'!r}")
    below = f"{path}." if path else ""
    if isinstance(first, dict):
        _check_same_keys(full, path)
        return {key: _merge(tuple(t[key] for t in full), f"{below}{key}") for key in first}
    items = [_merge(tuple(t[i] for t in full), f"{below}{i}") for i in range(len(first))]
    return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)


def _check_same_keys(trees: list[Tree], path: str) -> None:
    unshared = {key for tree in trees for key in tree if not all(key in other for other in trees)}
    if unshared:
        keys = sorted(map(str, unshared))
        raise ValueError(f"the trees to merge have different keys at {path or 'the root'!r}: {keys}")
