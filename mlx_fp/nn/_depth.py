"""How deep layers may be nested."""

from __future__ import annotations

import sys
from typing import Protocol, TypeAlias

__all__ = ["refuse_too_deep"]


class _Nested(Protocol):
    """A layer, of which only the parts matter here."""

    @property
    def parts(self) -> _Parts: ...


_Parts: TypeAlias = tuple[tuple[str, _Nested], ...]
"""The layers inside a layer, by path."""

_FRAMES_PER_LAYER, _FRAMES_AROUND = 7, 200
"""The largest measured number of Python frames per nested layer, and the frames of a program around the layers."""


def refuse_too_deep(parts: _Parts) -> None:
    """Raise RecursionError, with the remedy, for layers that are nested deeper than Python's stack allows."""
    depth, level = 1, {id(part): part for _, part in parts}
    while level:
        depth, level = depth + 1, {id(part): part for outer in level.values() for _, part in outer.parts}
    frames = _FRAMES_AROUND + _FRAMES_PER_LAYER * depth
    if frames > sys.getrecursionlimit():
        raise RecursionError(
            f"layers are nested {depth} deep, which takes {frames} frames of Python's stack, and its limit is "
            f"{sys.getrecursionlimit()}: call sys.setrecursionlimit({frames}) first"
        )
