"""The tracker that logs in MLflow: a SQLite file, or a server."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from more_itertools import chunked

from ..core._errors import named_error
from ._tracker import TrackedRun

__all__ = ["MLflow"]

_WAIT_SECONDS = 2.0
"""The seconds for which figures wait at most: a call of MLflow's SQLite store takes as long as many steps."""

_MOST_WAITING = 500
"""The number of figures that wait at most."""

_MOST_METRICS = 1000
"""The number of figures that MLflow takes in one call."""

_MOST_PARAMS = 100
"""The number of parameters that MLflow takes in one call."""

_LONGEST = 5000
"""The number of characters of a value that each of MLflow's stores takes."""


class MLflow:
    """Log figures in a run of MLflow. The active run of the program, of `mlflow.start_run`, is another one."""

    def __init__(self, *, uri: str | None = None, experiment: str = "mlx_fp", name: str | None = None) -> None:
        """Make a tracker.

        Args:
            uri: The place of the runs, for example `sqlite:///mlflow.db`. None: that of `mlflow.get_tracking_uri()`.
            experiment: The experiment; it is created where it is missing.
            name: The name of the run. None: the time at which it began.
        """
        self._uri, self._experiment, self._name = uri, experiment, name
        self._client: Any = None
        self._id = ""
        self._waiting: list[Any] = []
        self._sent = 0.0

    def start(self, run: TrackedRun) -> str:
        """Create a run of MLflow, or open it again by its id."""
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri)
        if run.id is not None:
            self._id = run.id
            self._client.update_run(run.id, status="RUNNING")
            self._client.set_tag(run.id, "resumed_from_step", run.step)
            return self._id
        found = self._client.get_experiment_by_name(self._experiment)
        number = self._client.create_experiment(self._experiment) if found is None else found.experiment_id
        self._id = self._client.create_run(number, run_name=self._name or run.name).info.run_id
        self._log_params(run.settings)
        return self._id

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures, together with others of the last seconds."""
        from mlflow.entities import Metric

        now = time.time()
        self._waiting += [
            Metric(_metric_key(name), float(value), int(now * 1000), step) for name, value in figures.items()
        ]
        if len(self._waiting) >= _MOST_WAITING or now - self._sent >= _WAIT_SECONDS:
            self._send()

    def artifact(self, path: str) -> None:
        """Copy a file into the artifacts of the run."""
        self._send()
        self._client.log_artifact(self._id, path)

    def finish(self, reason: str | BaseException | None) -> None:
        """Log the reason of the end as a tag, and close the run: finished, killed by a signal, or failed."""
        self._send()
        if reason is not None:
            text = named_error(reason) if isinstance(reason, BaseException) else reason
            self._client.set_tag(self._id, "stop_reason", text[:_LONGEST])
        killed = isinstance(reason, KeyboardInterrupt) or reason in ("SIGINT", "SIGTERM")
        failed = isinstance(reason, BaseException)
        self._client.set_terminated(self._id, "KILLED" if killed else "FAILED" if failed else "FINISHED")

    def _send(self) -> None:
        """Log the figures that wait."""
        waiting, self._waiting, self._sent = self._waiting, [], time.time()
        for some in chunked(waiting, _MOST_METRICS):
            self._client.log_batch(self._id, metrics=some)

    def _log_params(self, settings: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        params = (Param(_metric_key(name), str(value)[:_LONGEST]) for name, value in settings.items())
        for some in chunked(params, _MOST_PARAMS):
            self._client.log_batch(self._id, params=some)


def _metric_key(name: str) -> str:
    """Return a name with the characters that MLflow takes.

    >>> _metric_key("top-5 (val)")
    'top-5 _val_'
    """
    return re.sub(r"[^\w\-. /:]", "_", name)
