"""Language models of mlx-lm: load them, train them, and save them where mlx-lm reads them. Needs the extra `lm`."""

from __future__ import annotations

from ._tokenize import TokenCounts, tokenize

__all__ = ["TokenCounts", "tokenize"]


def __dir__() -> list[str]:
    return sorted(__all__)
