"""Which number of an epoch is watched, and the one verdict on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..core._errors import unknown
from ._report import Row

if TYPE_CHECKING:
    from ..task._task import Task

__all__ = ["Monitor", "Standing", "judged", "watched"]

_MODES = ("min", "max")


@dataclass(frozen=True, slots=True)
class Monitor:
    """A figure of a row by name, or a function of the row as `metric`; whether less or more of it is better.

    Without `mode` it is as the metric of that name says, once a run knows its metrics, and "min" where there is none.
    The first value that is a number improves, then one that is better than the best by more than `min_delta`. NaN never
    does.
    """

    name: str
    mode: str | None = None
    min_delta: float = 0.0
    metric: Callable[[Row], float] | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, *_MODES):
            raise ValueError(unknown("mode", str(self.mode), _MODES))
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta is a number of at least 0; got {self.min_delta!r}")
        if self.metric is not None and not callable(self.metric):
            raise TypeError(f"metric is a function of the row; got {self.metric!r}")

    def value(self, row: Row) -> float | None:
        """Return the watched value of a row, None where it has none."""
        if self.metric is not None:
            return float(self.metric(row))
        found = getattr(row, self.name)
        return None if found is None else float(found)

    def improves(self, value: float | None, best: float | None) -> bool:
        """Tell whether a value is better than the best so far.

        One that is not finite never is.

        >>> watched = Monitor("val_loss", min_delta=0.1)
        >>> watched.improves(float("nan"), None), watched.improves(1.0, None), watched.improves(0.95, 1.0)
        (False, True, False)
        """
        if value is None or not math.isfinite(value):
            return False
        if best is None:
            return True
        return (value - best if self.mode == "max" else best - value) > self.min_delta


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands by its monitor."""

    best_value: float | None = None
    best_epoch: int | None = None
    stale_epochs: int = 0
    """Epochs since the best one."""


def judged(monitor: Monitor, standing: Standing, row: Row, *, whole: bool = True) -> tuple[Standing, Row]:
    """Return how a run stands after an epoch, and its row with the verdict; an epoch that is not whole has no value."""
    value = monitor.value(row) if whole else None
    improved = monitor.improves(value, standing.best_value)
    stale = replace(standing, stale_epochs=standing.stale_epochs + 1)
    standing = Standing(value, row.epoch) if improved else stale
    verdict = replace(row, monitor_value=value, improved=improved, stale_epochs=standing.stale_epochs)
    return standing, verdict


def watched(task: Task, given: Monitor | None, held: bool, reported: Callable[[], list[str]]) -> Monitor:
    """Return the monitor of a run, the given one or what the task watches; `held` says whether there is validation.

    ValueError, with candidates, for a figure that rows will not have; `reported` is asked for what the loss reports
    only when no metric bears the name.

    >>> from mlx_fp.task._task import classification
    >>> watched(classification(), None, False, list).name
    'accuracy'
    >>> watched(classification(), Monitor("val_acuracy"), True, list)
    Traceback (most recent call last):
    ValueError: unknown monitor 'val_acuracy': did you mean 'val_accuracy'? known: epoch_loss, ..., val_accuracy
    """
    reserved = [m.name for m in task.metrics if m.name in (*Row.__slots__, "loss", "examples_per_second")]
    if reserved:
        raise ValueError(f"a metric is called {reserved[0]!r}, as something else in a row is: give it another name")
    if given is None:
        own = "epoch_loss" if task.monitor == "val_loss" else task.monitor.removeprefix("val_")
        given = Monitor(task.monitor if held else own, task.mode)
    modes = {m.name: m.mode for m in task.metrics}
    given = replace(given, mode=given.mode or modes.get(given.name.removeprefix("val_"), "min"))
    if given.metric is not None:
        return given
    metrics = [m.name for m in task.metrics]
    if given.name not in _figures(metrics, held):
        metrics += reported()
    if given.name not in _figures(metrics, held):
        hint = "; there is no validation data" if given.name.startswith("val_") and not held else ""
        raise ValueError(unknown("monitor", given.name, _figures(metrics, held)) + hint)
    return given


def _figures(metrics: list[str], held: bool) -> list[str]:
    own = ["epoch_loss", *metrics]
    return [*own, "val_loss", *(f"val_{name}" for name in metrics)] if held else own
