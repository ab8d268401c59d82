"""Language models of mlx-lm: load them, train them, and save them where mlx-lm reads them. Needs the extra `lm`."""

from __future__ import annotations

from ._generation import generate, stream
from ._loading import load
from ._loading_adapters import load_adapters
from ._packed import packed
from ._preference import dpo, orpo
from ._preference_rows import preferences
from ._saving import save
from ._saving_adapters import save_adapters
from ._tokenize import TokenCounts, tokenize

__all__ = [
    "TokenCounts",
    "dpo",
    "generate",
    "load",
    "load_adapters",
    "orpo",
    "packed",
    "preferences",
    "save",
    "save_adapters",
    "stream",
    "tokenize",
]


def __dir__() -> list[str]:
    return sorted(__all__)
