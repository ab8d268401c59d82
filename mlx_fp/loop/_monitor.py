"""The figure that a run watches, and the one verdict on each of its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core._context import WithContext, with_context
from ..core._errors import located, unknown
from ..core._pickling import Picklable
from ..core._signature import name_of, returned_number, signature_of
from ._rows import Row

if TYPE_CHECKING:
    from ..task._task import Task

__all__ = ["BestSoFar", "Monitor", "figure_name", "resolve_monitor", "update_best"]

_MODES = ("min", "max")


@dataclass(frozen=True, slots=True)
class Monitor(Picklable):
    """A figure to watch: a figure of a row by its name, or the value of a function.

    The first finite value improves. A later value improves when it is better than the best by more than `min_delta`.
    A value that is not finite never improves.

    Args:
        name: The figure, for example `"val_loss"`. `"epoch_loss"` is another name of `"loss"`.
        mode: `"min"` or `"max"`. None: the mode of the metric of that name; `"min"` for a loss and for a function. A
            figure that the loss reports has no mode of its own, and a run asks for it.
        min_delta: The least improvement that counts, 0 or more, in the unit of the figure.
        metric: A function that is given the row of the epoch and, if it has a parameter `losses`, the list of the
            losses of the epoch's steps so far, as in `report.losses`. It returns a number.

    Raises:
        ValueError: The mode is unknown, or `min_delta` is negative or not finite.
        TypeError: `metric` is no function, or has parameters of other names.

    >>> Monitor("val_accuracy", mode="max").watches_validation
    True
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
        """Whether the watched function has a parameter `losses`. Raise TypeError for unknown parameters."""
        return self.metric is not None and "losses" in _bound_metric(self.metric).context

    @property
    def watches_validation(self) -> bool:
        """Whether each validation is judged. Otherwise the end of each epoch is judged."""
        return self.metric is not None or self.name.startswith("val_")

    def value(self, row: Row, losses: Callable[[], list[float]] = list) -> float | None:
        """Return the watched value of a row, or None where the row has none.

        Args:
            row: The row of the epoch.
            losses: A function that returns the losses of the steps of the epoch. It is called only where they are used.

        Raises:
            TypeError: The watched function returns no number.
        """
        if self.metric is None:
            figure = getattr(row, self.name)
            return None if figure is None else float(figure)
        call = _bound_metric(self.metric)
        context = {"losses": losses()} if "losses" in call.context else {}
        with located(monitor=self.name):
            result = call(**context, row=row) if _begins_with_losses(self.metric) else call(row, **context)
        promise = f"{name_of(self.metric)!r}, which monitor {self.name!r} watches, returns a number for each row"
        return returned_number(result, promise)

    def improves(self, value: float | None, best: float | None) -> bool:
        """Tell whether a value is better than the best so far. A value that is not finite never is.

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
class BestSoFar:
    """The best evaluation of a run so far, and the number of evaluations since then."""

    best_value: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None
    stale: int = 0
    """Evaluations since the best one."""


def update_best(
    monitor: Monitor, best: BestSoFar, value: float | None, epoch: int, step: int
) -> tuple[BestSoFar, bool]:
    """Return the best evaluation after one with this value, and whether this one has improved.

    >>> update_best(Monitor("val_loss"), BestSoFar(0.5, 0, 10, 1), 0.75, 1, 20)
    (BestSoFar(best_value=0.5, best_epoch=0, best_step=10, stale=2), False)
    """
    if monitor.improves(value, best.best_value):
        return BestSoFar(value, epoch, step), True
    return replace(best, stale=best.stale + 1), False


def figure_name(name: str) -> str:
    """Return the present name of a figure: files of earlier versions call the loss `epoch_loss`.

    >>> figure_name("epoch_loss"), figure_name("val_loss")
    ('loss', 'val_loss')
    """
    return "loss" if name == "epoch_loss" else name


def resolve_monitor(
    task: Task,
    chosen: Monitor | None,
    sets: Sequence[str],
    reported: Callable[[], list[str]],
    *,
    training: Sequence[str] | None = None,
) -> Monitor:
    """Return the monitor of a run, with its mode.

    Args:
        task: The task, which names the figure to watch where no monitor is chosen.
        chosen: The monitor of the trainer, or None.
        sets: The names of the validation sets. `[""]` is one set without a name; `[]` is no validation.
        reported: A function that returns the names of the figures of the loss. It is called only where no metric has
            the name.
        training: The names of the metrics of training. None: those of the task.

    Raises:
        ValueError: Rows will have no such figure (with candidates), or the loss reports it and no mode is given.

    >>> from mlx_fp.task._task import classification
    >>> resolve_monitor(classification(), None, [], list).name
    'accuracy'
    >>> resolve_monitor(classification(), None, ["easy", "hard"], list).name
    'val_easy_accuracy'
    >>> resolve_monitor(classification(), Monitor("val_acuracy"), [""], list)
    Traceback (most recent call last):
    ValueError: unknown monitor 'val_acuracy': did you mean 'val_accuracy'? known: loss, accuracy, ..., val_accuracy
    """
    from ..task._folds import is_scalar  # this module loads without MLX

    reserved = [m.name for m in task.metrics if m.name in (*Row.__slots__, "loss", "examples_per_second")]
    if reserved:
        raise ValueError(f"a metric is called {reserved[0]!r}, as something else in a row is: give it another name")
    if chosen is None:
        chosen = Monitor(_usual_name(task, sets), task.mode)
    elif chosen.metric is None:
        chosen = replace(chosen, name=figure_name(chosen.name))
    metrics = [m.name for m in task.metrics]
    trained = metrics if training is None else list(training)
    tables = [m.name for m in task.metrics if chosen.metric is None and m.name == _metric_name(chosen.name, sets)]
    if any(not is_scalar(m) for m in task.metrics if m.name in tables):
        raise ValueError(f"monitor {chosen.name!r} is a table of numbers, and only a single number can be the best")
    if chosen.metric is not None or chosen.name in _figures(trained, metrics, sets):
        modes = {m.name: m.mode for m in task.metrics}
        return replace(chosen, mode=chosen.mode or modes.get(_metric_name(chosen.name, sets), "min"))
    more = reported()
    trained, metrics = trained + more, metrics + more
    if chosen.name not in _figures(trained, metrics, sets):
        hint = "; there is no validation data" if chosen.name.startswith("val_") and not sets else ""
        raise ValueError(unknown("monitor", chosen.name, _figures(trained, metrics, sets)) + hint)
    if chosen.mode is None:
        raise ValueError(
            f"monitor {chosen.name!r} is a figure that the loss reports, and nothing says whether less or more of it "
            'is better: give mode="min" or mode="max"'
        )
    return chosen


def _bound_metric(metric: Callable[..., Any]) -> WithContext:
    """Return how a function is called: with the row first, unless its first parameter is `losses`."""
    if _begins_with_losses(metric):
        return with_context(metric, offers=("losses", "row"), values=0, what="monitor function")
    return with_context(metric, offers=("losses",), what="monitor function")


def _begins_with_losses(metric: Callable[..., Any]) -> bool:
    parameters = signature_of(metric) or []
    return [p.name for p in parameters[:1]] == ["losses"]


def _usual_name(task: Task, sets: Sequence[str]) -> str:
    """Return the figure that a task watches: of the first validation set, or of training without validation."""
    figure = task.monitor.removeprefix("val_")
    if not task.monitor.startswith("val_"):
        return figure_name(task.monitor)
    if not sets:
        return figure
    return f"val_{sets[0]}_{figure}" if sets[0] else task.monitor


def _metric_name(figure: str, sets: Sequence[str]) -> str:
    """Return the name of the metric of a figure."""
    name = figure.removeprefix("val_")
    prefixes = [f"{each}_" for each in sets if each and figure.startswith(f"val_{each}_")]
    return name.removeprefix(prefixes[0]) if prefixes else name


def _figures(trained: list[str], metrics: list[str], sets: Sequence[str]) -> list[str]:
    """List the names of the figures that rows will have, of training and of validation sets."""
    validation = [f"val_{name}_{figure}" if name else f"val_{figure}" for name in sets for figure in ("loss", *metrics)]
    return ["loss", *trained, *validation]
