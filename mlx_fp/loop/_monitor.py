"""Which number of an epoch is watched, and the one verdict on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core._errors import located, unknown
from ..core._pickling import Picklable
from ..core._signature import WithContext, name_of, returned_number, signature_of, with_context
from ._rows import Row

if TYPE_CHECKING:
    from ..task._task import Task

__all__ = ["Monitor", "Standing", "judged", "watched"]

_MODES = ("min", "max")


@dataclass(frozen=True, slots=True)
class Monitor(Picklable):
    """A figure of a row by name, or a function as `metric`; whether less or more of it is better.

    The function is given the row of the epoch, and, where it names `losses`, the list of the losses of the epoch's
    steps so far, as `report.losses` has them.

    Without `mode` it is as the metric of that name says, once a run knows its metrics, and "min" for a loss and for a
    function. A figure that the loss reports has no direction of its own: a run asks for the mode.
    The first value that is a number improves, then one that is better than the best by more than `min_delta`. NaN never
    does.
    """

    name: str
    mode: str | None = None
    min_delta: float = 0.0
    metric: Callable[..., float] | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, *_MODES):
            raise ValueError(unknown("mode", str(self.mode), _MODES))
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta is a number of at least 0; got {self.min_delta!r}")
        if self.metric is not None and not callable(self.metric):
            raise TypeError(f"metric is a function of the row; got {self.metric!r}")
        _ = self.takes_losses

    @property
    def takes_losses(self) -> bool:
        """Whether a function is watched that names the losses of the epoch. TypeError for one that names others."""
        return self.metric is not None and "losses" in _called(self.metric).context

    def value(self, row: Row, losses: Callable[[], list[float]] = list) -> float | None:
        """Return the watched value of a row, None where it has none; `losses` returns those of the epoch."""
        if self.metric is None:
            found = getattr(row, self.name)
            return None if found is None else float(found)
        call = _called(self.metric)
        context = {"losses": losses()} if "losses" in call.context else {}
        with located(monitor=self.name):
            given = call(**context, row=row) if _by_name(self.metric) else call(row, **context)
        promise = f"{name_of(self.metric)!r}, which monitor {self.name!r} watches, returns a number for each row"
        return returned_number(given, promise)

    @property
    def watches_validation(self) -> bool:
        """Whether each validation is judged; else the end of an epoch is."""
        return self.metric is not None or self.name.startswith("val_")

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
    best_step: int | None = None
    stale: int = 0
    """Evaluations since the best one."""


def judged(monitor: Monitor, standing: Standing, value: float | None, epoch: int, step: int) -> tuple[Standing, bool]:
    """Return how a run stands after an evaluation of such a value, and whether it has improved.

    >>> judged(Monitor("val_loss"), Standing(0.5, 0, 10, 1), 0.75, 1, 20)
    (Standing(best_value=0.5, best_epoch=0, best_step=10, stale=2), False)
    """
    if monitor.improves(value, standing.best_value):
        return Standing(value, epoch, step), True
    return replace(standing, stale=standing.stale + 1), False


def watched(
    task: Task,
    given: Monitor | None,
    sets: Sequence[str],
    reported: Callable[[], list[str]],
    *,
    training: Sequence[str] | None = None,
) -> Monitor:
    """Return the monitor of a run, the given one or the task's own.

    Args:
        task: says which figure to watch where no monitor is given.
        given: the monitor of the trainer.
        sets: the names of the validation sets: `[""]` for one without a name, none without validation.
        reported: returns the names of the figures of the loss; it is called only where no metric bears the name.
        training: the names of the metrics of training, those of the task by default.

    Raises:
        ValueError: rows will have no such figure; with candidates. Or the loss reports it, and no mode is given.

    >>> from mlx_fp.task._task import classification
    >>> watched(classification(), None, [], list).name, watched(classification(), None, ["easy", "hard"], list).name
    ('accuracy', 'val_easy_accuracy')
    >>> watched(classification(), Monitor("val_acuracy"), [""], list)
    Traceback (most recent call last):
    ValueError: unknown monitor 'val_acuracy': did you mean 'val_accuracy'? known: epoch_loss, ..., val_accuracy
    """
    from ..task._folds import is_scalar  # this module loads without MLX

    reserved = [m.name for m in task.metrics if m.name in (*Row.__slots__, "loss", "examples_per_second")]
    if reserved:
        raise ValueError(f"a metric is called {reserved[0]!r}, as something else in a row is: give it another name")
    if given is None:
        given = Monitor(_usual_name(task, sets), task.mode)
    metrics = [m.name for m in task.metrics]
    own = metrics if training is None else list(training)
    tables = [m.name for m in task.metrics if given.metric is None and m.name == _metric_name(given.name, sets)]
    if any(not is_scalar(m) for m in task.metrics if m.name in tables):
        raise ValueError(f"monitor {given.name!r} is no single number, so that none of it is the best")
    if given.metric is not None or given.name in _figures(own, metrics, sets):
        modes = {m.name: m.mode for m in task.metrics}
        return replace(given, mode=given.mode or modes.get(_metric_name(given.name, sets), "min"))
    more = reported()
    own, metrics = own + more, metrics + more
    if given.name not in _figures(own, metrics, sets):
        hint = "; there is no validation data" if given.name.startswith("val_") and not sets else ""
        raise ValueError(unknown("monitor", given.name, _figures(own, metrics, sets)) + hint)
    if given.mode is None:
        raise ValueError(
            f"monitor {given.name!r} is a figure that the loss reports, and nothing says whether less or more of it is "
            'better: give mode="min" or mode="max"'
        )
    return given


def _called(metric: Callable[..., Any]) -> WithContext:
    """Return how a function is called, which takes the row first unless its parameters begin with the losses."""
    if _by_name(metric):
        return with_context(metric, offers=("losses", "row"), values=0, what="monitor function")
    return with_context(metric, offers=("losses",), what="monitor function")


def _by_name(metric: Callable[..., Any]) -> bool:
    parameters = signature_of(metric) or []
    return [p.name for p in parameters[:1]] == ["losses"]


def _usual_name(task: Task, sets: Sequence[str]) -> str:
    """Return the figure that a task watches: of the first validation set, or of training where there is none."""
    own = task.monitor.removeprefix("val_")
    if not task.monitor.startswith("val_"):
        return task.monitor
    if not sets:
        return "epoch_loss" if own == "loss" else own
    return f"val_{sets[0]}_{own}" if sets[0] else task.monitor


def _metric_name(figure: str, sets: Sequence[str]) -> str:
    """Return the metric that a figure is of."""
    own = figure.removeprefix("val_")
    prefixes = [f"{name}_" for name in sets if name and figure.startswith(f"val_{name}_")]
    return own.removeprefix(prefixes[0]) if prefixes else own


def _figures(own: list[str], metrics: list[str], sets: Sequence[str]) -> list[str]:
    """List the figures that rows will have, of training and of validation sets."""
    validation = [f"val_{name}_{figure}" if name else f"val_{figure}" for name in sets for figure in ("loss", *metrics)]
    return ["epoch_loss", *own, *validation]
