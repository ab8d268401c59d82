"""Send the figures of a run to a tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from ..core._errors import named_error, unknown
from ..core._signature import name_of
from ..loop._event import AfterCheckpoint, AfterEpoch, AfterFit, AfterLog, AfterValidation, BeforeFit
from ..loop._hook import Hook, RunHooks, fold, hook
from ..loop._rows import Row, StepRow, scalars
from ..loop._trainer import with_hooks
from ..loop._verb import TrainerVerb, as_verb
from ._back_ends import back_end
from ._tracker import TrackedRun, Tracker, flat_settings, readable_time

__all__ = ["track"]

_LOG = logging.getLogger("mlx_fp.show")

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
    hooks = RunHooks(partial(_connected, make, label, FrozenDict(settings), kinds), f"track({label})")
    return as_verb(track, with_hooks(hooks), tracker, settings=settings, artifacts=artifacts, **options)


def _maker(tracker: object, options: Mapping[str, Any]) -> tuple[Callable[[], Tracker], str]:
    """Return a function that makes the tracker of a run, and the name of the tracker."""
    if isinstance(tracker, str):
        return back_end(tracker, options), tracker
    if options:
        raise TypeError(
            f"options are for a tracker that is given by its name; got {', '.join(options)} and {tracker!r}"
        )
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


@contextmanager
def _connected(make: Callable[[], Tracker], label: str, artifacts: Sequence[str]) -> Iterator[tuple[Hook, ...]]:
    """Within, yield the hooks of a tracker. At the end the tracker is closed, if no hook has closed it."""
    connection = _Connection(make, label)
    try:
        yield _hooks(connection, f"track({label})", artifacts)
    except BaseException as error:
        connection.finish(error)
        raise
    connection.finish(None)


class _Connection:
    """The tracker of one run. Calls of a tracker that is not open do nothing, and a call that fails is a warning."""

    def __init__(self, make: Callable[[], Tracker], label: str) -> None:
        self._make, self._label = make, label
        self._tracker: Tracker | None = None
        self._has_failed = False

    def start(self, run: TrackedRun) -> object:
        """Open the tracker, and return its identity of the run."""
        try:
            tracker = self._make()
            identity = tracker.start(run)
        except Exception as error:
            self._warn(error, "gets no figures of this run")
            return run.id
        self._tracker = tracker
        return identity

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures."""
        if self._tracker is not None:
            try:
                self._tracker.log(step, figures)
            except Exception as error:
                self._warn(error, f"lacks figures of step {step}, and perhaps others")

    def artifact(self, path: str) -> None:
        """Give a file to the tracker."""
        if self._tracker is not None:
            try:
                self._tracker.artifact(path)
            except Exception as error:
                self._warn(error, f"lacks {path}, and perhaps more")

    def finish(self, reason: str | BaseException | None) -> None:
        """Close the tracker, if it is open."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            try:
                tracker.finish(reason)
            except Exception as error:
                self._warn(error, "was not closed")

    def _warn(self, error: Exception, consequence: str) -> None:
        """Warn of the first failure of a run."""
        if not self._has_failed:
            self._has_failed = True
            message = "the run goes on, and the tracker %s %s: %s"
            _LOG.warning(message, self._label, consequence, named_error(error))


def _hooks(connection: _Connection, name: str, artifacts: Sequence[str]) -> tuple[Hook, ...]:
    """Return the hooks of a tracker. The memory of the first is the identity of the run in the tracker."""

    def start(memory: object, event: BeforeFit) -> tuple[object, None]:
        return (memory if event.world.rank else connection.start(_tracked_run(memory, event))), None

    def step(event: AfterLog) -> None:
        connection.log(event.row.step, _step_figures(event.row))

    def evaluation(event: AfterValidation) -> None:
        connection.log(event.row.step, event.row.figures())

    def epoch(event: AfterEpoch) -> None:
        connection.log(event.row.steps, _epoch_figures(event.row))

    def checkpoint(event: AfterCheckpoint) -> None:
        connection.artifact(event.path)

    def finish(event: AfterFit) -> None:
        policy = event.report.policy or {}
        if "bundle" in artifacts and policy.get("bundle"):
            connection.artifact(str(policy["bundle"]))
        connection.finish(event.report.stop_reason if event.error is None else event.error)

    saved = [hook("after_checkpoint", checkpoint, name=name)] if "checkpoints" in artifacts else []
    return (
        fold("before_fit", None, start, name=name),
        hook("after_log", step, name=name),
        hook("after_validation", evaluation, name=name),
        hook("after_epoch", epoch, name=name),
        *saved,
        hook("after_fit", finish, name=name),
    )


def _tracked_run(memory: object, event: BeforeFit) -> TrackedRun:
    settings = dict(event.setup)
    options = settings.pop("options", {})
    assert isinstance(options, Mapping)
    return TrackedRun(
        memory, readable_time(event.run), event.start_step, event.folder, flat_settings({**settings, **options})
    )


def _step_figures(row: StepRow) -> dict[str, float]:
    """Return the figures of a logged step that are numbers."""
    return {name: value for name, value in row.to_dict().items() if isinstance(value, (int, float)) and name != "step"}


def _epoch_figures(row: Row) -> dict[str, float]:
    """Return the training figures of an epoch that are numbers. Its evaluations are logged by themselves."""
    figures = {"loss": row.loss, "seconds": row.seconds, "examples_per_second": row.examples_per_second}
    named = {f"epoch_{name}": value for name, value in scalars({**figures, **row.metrics}).items()}
    return {"epoch": row.epoch, **named}
