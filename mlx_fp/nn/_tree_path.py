"""The subtree of a tree at a dotted path: read it, and put another one there."""

from __future__ import annotations

from typing import Any

__all__ = ["at_path", "joined", "put_at"]


def joined(path: str, name: str) -> str:
    """Join two dotted paths, of which any may be empty.

    >>> joined("layers", "0"), joined("", "head"), joined("head", "")
    ('layers.0', 'head', 'head')
    """
    return f"{path}.{name}" if path and name else path or name


def at_path(tree: Any, path: str) -> Any:
    """Return the subtree at a path; an empty path is the whole tree.

    >>> at_path({"layers": [{"weight": 1}]}, "layers.0")
    {'weight': 1}
    """
    for name in path.split(".") if path else ():
        tree = tree[int(name)] if isinstance(tree, (list, tuple)) else tree[name]
    return tree


def put_at(tree: Any, path: str, value: Any) -> Any:
    """Return a tree with another subtree at a path. The containers on the way are copied.

    >>> put_at({"a": [1, 2], "b": 3}, "a.1", {"c": 4})
    {'a': [1, {'c': 4}], 'b': 3}
    """
    if not path:
        return value
    name, _, below = path.partition(".")
    if isinstance(tree, dict):
        return {key: put_at(child, below, value) if key == name else child for key, child in tree.items()}
    return [put_at(child, below, value) if i == int(name) else child for i, child in enumerate(tree)]
