"""How a run was set up, as plain values for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..core._frozen import FrozenDict, freeze_field

__all__ = ["Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """How a run was set up. Functions stand by their names, data and optimiser as they print."""

    train: str
    validation: Mapping[str, str]
    """The validation sets by name; a single one has the name ""."""
    optimizer: str
    monitor_metric: str | None
    """The function that the monitor watches; None for a figure."""
    min_delta: float
    resume_source: str | None
    """The kind of `resume`: "latest", "best", "path", "checkpoint", "bundle" or "function"; None for a new run."""
    resume_kind: str = "fresh"
    """Whether the run is "fresh", or goes on from a checkpoint, "exact" or "inexact"."""
    differences: tuple[str, ...] = ()
    """Why it goes on inexactly: each says the value in the file and the one here."""
    params_given: bool = False
    """Whether parameters were given to begin with."""
    options: Mapping[str, Any] = field(default_factory=FrozenDict)
    """The other options of the run by name, defaults too: `epochs`, `seed`, `reduce`, `compile`, `sync`, …"""

    def __post_init__(self) -> None:
        freeze_field(self, "validation", "options")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "differences": list(self.differences)}
