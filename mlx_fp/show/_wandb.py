"""The trackers with the interface of wandb: wandb itself, and trackio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core._errors import named_error
from ._tracker import TrackedRun

__all__ = ["Trackio", "Wandb"]


class Wandb:
    """Log figures in a run of wandb. The present run of the program, `wandb.run`, is another one."""

    def __init__(self, *, project: str = "mlx_fp", **init: Any) -> None:
        """Make a tracker.

        Args:
            project: The project.
            init: Other options of `wandb.init`, for example `mode="offline"`.
        """
        self._options = {"project": project, "reinit": "create_new", **init}
        self._run: Any = None

    def start(self, run: TrackedRun) -> str:
        """Start a run of wandb, or resume it by its id."""
        import wandb

        more = {} if run.id is None else {"id": run.id, "resume": "allow"}
        self._run = wandb.init(config=dict(run.settings), **more, **self._options)
        self._run.define_metric("*", step_metric="step")  # wandb's own steps cannot go back, as resumed runs do
        return str(self._run.id)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures."""
        self._run.log({"step": step, **figures})

    def artifact(self, path: str) -> None:
        """Log a file as an artifact. Files of one suffix are versions of one artifact."""
        suffix = Path(path).suffix.removeprefix(".")
        self._run.log_artifact(path, name=f"{self._run.id}-{suffix}", type="bundle" if suffix == "json" else "model")

    def finish(self, reason: str | BaseException | None) -> None:
        """Finish the run. An error is a failed run."""
        failed = isinstance(reason, BaseException)
        if reason is not None:
            self._run.summary["stop_reason"] = named_error(reason) if isinstance(reason, BaseException) else reason
        self._run.finish(exit_code=int(failed))


class Trackio:
    """Log figures in a run of trackio. trackio knows a run by its name."""

    def __init__(self, *, project: str = "mlx_fp", name: str | None = None, **init: Any) -> None:
        """Make a tracker.

        Args:
            project: The project.
            name: The name of the run. None: the time at which it began.
            init: Other options of `trackio.init`.
        """
        self._name, self._options = name, {"project": project, "embed": False, **init}
        self._run: Any = None

    def start(self, run: TrackedRun) -> str:
        """Start a run of trackio, or resume it by its name."""
        import trackio

        name, resume = (self._name or run.name, "never") if run.id is None else (run.id, "allow")
        self._run = trackio.init(name=name, resume=resume, config=dict(run.settings), **self._options)
        return str(self._run.name)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures."""
        self._run.log(dict(figures), step=step)

    def artifact(self, path: str) -> None:
        """Log a file as an artifact."""
        self._run.log_artifact(path)

    def finish(self, reason: str | BaseException | None) -> None:
        """Log the reason of the end, and finish the run."""
        import trackio

        if reason is not None:
            text = named_error(reason) if isinstance(reason, BaseException) else reason
            level = trackio.AlertLevel.ERROR if isinstance(reason, BaseException) else trackio.AlertLevel.INFO
            self._run.alert("the run ended", text=text, level=level)
        trackio.finish()
