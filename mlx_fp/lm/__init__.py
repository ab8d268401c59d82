"""Language models of mlx-lm: load them, train them, and save them where mlx-lm reads them. Needs the extra `lm`."""

from __future__ import annotations

from ._generation import generate, stream
from ._loading import load
from ._saving import save

__all__ = ["generate", "load", "save", "stream"]


def __dir__() -> list[str]:
    return sorted(__all__)
