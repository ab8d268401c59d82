"""Send the figures of a run to a tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from ..core._errors import unknown
from ..core._frozen import FrozenDict
from ..core._options import Rule, check_options
from ..core._signature import name_of
from ..loop._hook import RunHooks
from ..loop._trainer import with_hooks
from ..loop._verb import TrainerVerb, as_verb
from ._back_ends import back_end
from ._connection import connected
from ._tracker import TrackedRun, Tracker

__all__ = ["track"]

_NONE: Mapping[str, object] = FrozenDict()

_MAPPING = Rule("a dict", lambda value: isinstance(value, Mapping), of_type=True)

_ARTIFACTS = ("checkpoints", "bundle")
"""The kinds of files that a tracker can get."""


class Log(Protocol):
    """A function that logs figures, for example `wandb.log`."""

    def __call__(self, figures: dict[str, float], /, *, step: int) -> object:
        """Log figures, floats by name, at a number of steps."""


def track(
    tracker: str | Tracker | Log,
    *,
    settings: Mapping[str, object] = _NONE,
    artifacts: str | Sequence[str] = (),
    **options: Any,
) -> TrainerVerb:
    """Send the figures of a run to a tracker.

    It gets the settings at the start, each logged step (`log_every`), each evaluation (`val_…`), each epoch
    (`epoch_…`), and the reason of the end. A resumed run goes on in the same run of the tracker. A tracker that fails
    is a warning, and the run goes on. With several processes rank 0 alone calls the tracker.

    Args:
        tracker: The name of a tracker, "csv", "tensorboard", "wandb", "trackio", "mlflow" or "swanlab"; an object with
            the methods of `Tracker`; or a function that takes a dict of floats by name, and `step`, the number of steps
            of the run so far.
        settings: Settings of your own, plain values by name, beside those of the run. Default: none.
        artifacts: The files that the tracker gets: "checkpoints", "bundle", or both in a list. Default: none.
        options: Options of a tracker that is given by its name; docs/tracking.md lists them.

    Returns:
        A function from a trainer to a trainer with these hooks.

    Raises:
        ValueError: There is no such tracker, or no such kind of files; the error names the nearest one.
        TypeError: `tracker` is something else, or an option is unknown.
        ImportError: The package of the tracker is missing. The error names the extra to install.

    >>> track("csv", path="figures.csv")
    track('csv', path='figures.csv')
    """
    kinds = (artifacts,) if isinstance(artifacts, str) else tuple(artifacts)
    for kind in kinds:
        if kind not in _ARTIFACTS:
            raise ValueError(unknown("kind of artifacts", kind, _ARTIFACTS))
    check_options("track", {"settings": settings}, {"settings": _MAPPING})
    make, label = _maker(tracker, options)
    hooks = RunHooks(partial(connected, make, label, FrozenDict(settings), kinds), f"track({label})")
    return as_verb(track, with_hooks(hooks), tracker, settings=settings, artifacts=artifacts, **options)


def _maker(tracker: object, options: Mapping[str, Any]) -> tuple[Callable[[], Tracker], str]:
    """Return a function that makes the tracker of a run, and the name of the tracker."""
    if isinstance(tracker, str):
        return back_end(tracker, options), tracker
    if options:
        names = ", ".join(options)
        raise TypeError(f"track takes {names} for a tracker that is given by its name; got {tracker!r}")
    if isinstance(tracker, Tracker) and not isinstance(tracker, type):
        return partial(_same, tracker), type(tracker).__name__
    if not callable(tracker) or isinstance(tracker, type):
        methods = ("start", "log", "artifact", "finish")
        lacks = [name for name in methods if not callable(getattr(tracker, name, None))]
        hint = f"; this one lacks {', '.join(lacks)}" if len(lacks) < len(methods) and lacks else ""
        hint = f"; give an object of this class: {tracker.__name__}()" if isinstance(tracker, type) else hint
        raise TypeError(
            f"track takes the name of a tracker, an object with the methods {', '.join(methods)}, or a function of "
            f"figures and a step; got {tracker!r}{hint}"
        )
    return partial(_FunctionTracker, tracker), name_of(tracker)


def _same(tracker: Tracker) -> Tracker:
    return tracker


class _FunctionTracker:
    """A tracker that calls a function with figures."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def start(self, run: TrackedRun) -> None:
        """Do nothing."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Call the function."""
        self._log(dict(figures), step=step)

    def artifact(self, path: str) -> None:
        """Do nothing."""

    def finish(self, reason: object) -> None:
        """Do nothing."""
