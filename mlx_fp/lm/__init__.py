"""Language models of mlx-lm: load them, train them, and save them where mlx-lm reads them. Needs the extra `lm`."""

from __future__ import annotations

from ._preference import dpo, orpo
from ._preference_rows import preferences

__all__ = ["dpo", "orpo", "preferences"]


def __dir__() -> list[str]:
    return sorted(__all__)
