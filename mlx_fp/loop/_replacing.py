"""Check the trees that a hook gives by `Replace`."""

from __future__ import annotations

from ..core._types import Tree

__all__ = ["checked_tree"]


def checked_tree(name: str, present: Tree, replacement: Tree) -> Tree:
    """Return the replacement of a tree. Raise ValueError where paths, shapes, dtypes or containers differ.

    >>> checked_tree("params", {"w": mx.zeros((2,))}, {"w": mx.zeros((3,))})
    Traceback (most recent call last):
    ValueError: Replace(params=…) is not like the params of the run: w is float32 (2,), given float32 (3,)
    """
    from ..tree._paths import flat, same_structure

    here, given = (
        {path: _dtype_and_shape(leaf) for path, leaf in flat(tree).items()} for tree in (present, replacement)
    )
    differing = [path for path in here | given if here.get(path) != given.get(path)]
    if differing:
        lines = [f"{path} is {here.get(path, 'not there')}, given {given.get(path, 'nothing')}" for path in differing]
        raise ValueError(f"Replace({name}=…) is not like the {name} of the run: {'; '.join(lines[:5])}")
    if not same_structure(present, replacement):
        raise ValueError(f"Replace({name}=…) has the paths of the {name} of the run, but not its containers")
    return replacement


def _dtype_and_shape(leaf: object) -> str:
    dtype = str(getattr(leaf, "dtype", type(leaf).__name__)).removeprefix("mlx.core.")
    return f"{dtype} {tuple(getattr(leaf, 'shape', ()))}"
