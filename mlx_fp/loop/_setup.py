"""The settings of a run as plain values, for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from ..core._frozen import FrozenDict, freeze_field

__all__ = ["Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings of a run. Functions are given by their names, data and optimiser by their reprs."""

    train: str
    validation: Mapping[str, str]
    """The validation sets by name; a single one has the name ""."""
    optimizer: str
    monitor_metric: str | None
    """The name of the function that the monitor watches; None: it watches a figure."""
    min_delta: float
    resume_source: str | None
    """The kind of `resume`: "latest", "best", "path", "checkpoint", "bundle" or "function"; None for a new run."""
    resume_kind: str = "fresh"
    """"fresh" for a new run; "exact" or "inexact" for a resumed one."""
    differences: tuple[str, ...] = ()
    """The reasons why a resumed run is inexact. Each has the value in the file and the present value."""
    params_given: bool = False
    """Whether the run began with given parameters."""
    options: Mapping[str, object] = field(default_factory=FrozenDict)
    """The other options of the run by name, with their defaults, for example `epochs`, `seed` and `sync`."""
    changed: tuple[str, ...] = ()
    """The names of the options that differ from their defaults."""
    settings: Mapping[str, object] = field(default_factory=FrozenDict)
    """The settings of the experiment by path; none for a run without an experiment."""

    def __post_init__(self) -> None:
        freeze_field(self, "validation", "options", "settings")

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "differences": list(self.differences), "changed": list(self.changed)}
