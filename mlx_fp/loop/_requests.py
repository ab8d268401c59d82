"""The requests of hooks, signals and losses, which the loop carries out between two steps."""

from __future__ import annotations

from dataclasses import dataclass

from ._directive import Stop

__all__ = ["Requests"]


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of hooks, signals and losses. The first stop stays."""

    stop: Stop | None = None
    save: bool = False
    validate: bool = False
    interrupted: bool = False
    """Whether a signal ends the run. There is no last validation then."""
    diverged: bool = False
    """Whether a loss that is not finite has ended the run."""
