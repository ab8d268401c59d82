"""The hooks that send the figures of a run to its tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..core._errors import named_error
from ..loop._event import AfterCheckpoint, AfterEpoch, AfterFit, AfterLog, AfterValidation, BeforeFit
from ..loop._hook import Hook, fold, hook
from ..loop._rows import Row, StepRow, scalars
from ._tracker import TrackedRun, Tracker, flat_settings, readable_time

__all__ = ["connected"]

_LOG = logging.getLogger("mlx_fp.show")


@contextmanager
def connected(
    make: Callable[[], Tracker], label: str, settings: Mapping[str, object], artifacts: Sequence[str]
) -> Iterator[tuple[Hook, ...]]:
    """Within, yield the hooks of a tracker. At the end the tracker is closed, if no hook has closed it."""
    connection = _Connection(make, label)
    try:
        yield _hooks(connection, f"track({label})", settings, artifacts)
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

    def flush(self) -> None:
        """Let a tracker that collects figures write them: a run that is killed goes on after its last checkpoint."""
        if (flush := getattr(self._tracker, "flush", None)) is not None:
            try:
                flush()
            except Exception as error:
                self._warn(error, "may lack figures")

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


def _hooks(
    connection: _Connection, name: str, settings: Mapping[str, object], artifacts: Sequence[str]
) -> tuple[Hook, ...]:
    """Return the hooks of a tracker. The memory of the first is the identity of the run in the tracker."""

    def start(memory: object, event: BeforeFit) -> tuple[object, None]:
        return (memory if event.world.rank else connection.start(_tracked_run(memory, event, settings))), None

    def step(event: AfterLog) -> None:
        connection.log(event.row.step, _step_figures(event.row))

    def evaluation(event: AfterValidation) -> None:
        connection.log(event.row.step, event.row.figures())

    def epoch(event: AfterEpoch) -> None:
        connection.log(event.row.steps, _epoch_figures(event.row))

    def checkpoint(event: AfterCheckpoint) -> None:
        connection.flush()
        if "checkpoints" in artifacts:
            connection.artifact(event.path)

    def finish(event: AfterFit) -> None:
        policy = event.report.policy or {}
        if "bundle" in artifacts and policy.get("bundle"):
            connection.artifact(str(policy["bundle"]))
        connection.finish(event.report.stop_reason if event.error is None else event.error)

    return (
        fold("before_fit", None, start, name=name),
        hook("after_log", step, name=name),
        hook("after_validation", evaluation, name=name),
        hook("after_epoch", epoch, name=name),
        hook("after_checkpoint", checkpoint, name=name),
        hook("after_fit", finish, name=name),
    )


def _tracked_run(memory: object, event: BeforeFit, settings: Mapping[str, object]) -> TrackedRun:
    """Return the run of an event, with its settings and those of the user."""
    named = dict(event.setup)
    options = named.pop("options", {})
    assert isinstance(options, Mapping)
    every = flat_settings({**named, **options, **settings})
    return TrackedRun(memory, readable_time(event.run), event.start_step, event.folder, every)


def _step_figures(row: StepRow) -> dict[str, float]:
    """Return the figures of a logged step that are numbers."""
    return {name: value for name, value in row.to_dict().items() if isinstance(value, (int, float)) and name != "step"}


def _epoch_figures(row: Row) -> dict[str, float]:
    """Return the training figures of an epoch that are numbers. Its evaluations are logged by themselves."""
    figures = {"loss": row.loss, "seconds": row.seconds, "examples_per_second": row.examples_per_second}
    named = {f"epoch_{name}": value for name, value in scalars({**figures, **row.metrics}).items()}
    return {"epoch": row.epoch, **named}
