"""Check the trees that a hook gives in the place of others."""

from __future__ import annotations

from ..core._types import Tree

__all__ = ["checked_tree"]


def checked_tree(name: str, own: Tree, given: Tree) -> Tree:
    """Return a tree that a hook gives as `name`; ValueError unless paths, shapes, dtypes and containers are the own.

    >>> checked_tree("params", {"w": mx.zeros((2,))}, {"w": mx.zeros((3,))})
    Traceback (most recent call last):
    ValueError: Replace(params=…) is not like the params of the run: w is float32 (2,), given float32 (3,)
    """
    from ..tree._paths import flat, same_structure

    mine, theirs = flat(own), flat(given)
    kinds = [{path: _kind(leaf) for path, leaf in leaves.items()} for leaves in (mine, theirs)]
    other = [path for path in kinds[0] | kinds[1] if kinds[0].get(path) != kinds[1].get(path)]
    if other:
        each = [f"{path} is {kinds[0].get(path, 'not there')}, given {kinds[1].get(path, 'nothing')}" for path in other]
        raise ValueError(f"Replace({name}=…) is not like the {name} of the run: {'; '.join(each[:5])}")
    if not same_structure(own, given):
        raise ValueError(f"Replace({name}=…) has the paths of the {name} of the run, but not its containers")
    return given


def _kind(leaf: object) -> str:
    dtype = str(getattr(leaf, "dtype", type(leaf).__name__)).removeprefix("mlx.core.")
    return f"{dtype} {tuple(getattr(leaf, 'shape', ()))}"
