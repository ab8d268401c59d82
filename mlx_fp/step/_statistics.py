"""Statistics of arrays, in words."""

from __future__ import annotations

from ..core._mlx import mx
from ..core._text import dtype_name
from ..core._types import Array, Tree
from ..tree._paths import leaves

__all__ = ["is_finite", "statistics"]


def is_finite(tree: Tree) -> bool:
    """Tell whether all floating arrays of a tree are finite. This waits for the device.

    >>> is_finite([mx.array(1.0), mx.array([1, 2]), "text"]), is_finite({"w": mx.array([0.0, mx.inf])})
    (True, False)
    """
    return all(mx.isfinite(leaf).all().item() for leaf in _floats(tree))


def statistics(tree: Tree) -> tuple[str, ...]:
    """Describe each floating array of a tree in a line.

    >>> statistics([mx.array([1.0, 2.0]), mx.array([mx.nan, mx.inf])])
    ('float32 (2,): from 1 to 2, mean 1.5', 'float32 (2,): 1 NaN, 1 infinite')
    """
    return tuple(map(_array_text, _floats(tree)))


def _array_text(array: Array) -> str:
    start, finite = f"{dtype_name(array.dtype)} {array.shape}", mx.isfinite(array)
    wide = array.astype(mx.float32)
    if not finite.all().item():
        nan, infinite = mx.isnan(array), ~finite & ~mx.isnan(array)
        return f"{start}: {nan.sum().item()} NaN, {infinite.sum().item()} infinite"
    if not array.size:
        return f"{start}: empty"
    return f"{start}: from {wide.min().item():g} to {wide.max().item():g}, mean {wide.mean().item():g}"


def _floats(tree: Tree) -> list[Array]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.floating)]
