"""The tracker that logs in SwanLab."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..core._errors import named_error
from ._tracker import TrackedRun

__all__ = ["SwanLab"]


class SwanLab:
    """Log figures in a run of SwanLab. SwanLab has one open run in a program."""

    def __init__(self, *, project: str = "mlx_fp", **init: Any) -> None:
        """Make a tracker.

        Args:
            project: The project.
            init: Other options of `swanlab.init`, for example `mode="offline"`.
        """
        self._options = {"project": project, **init}
        self._run: Any = None

    def start(self, run: TrackedRun) -> str:
        """Start a run of SwanLab, or resume it by its id."""
        import swanlab

        more = {} if run.id is None else {"id": run.id, "resume": "allow"}
        self._run = swanlab.init(config=dict(run.settings), **more, **self._options)
        return str(self._run.id)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures."""
        self._run.log(dict(figures), step=step)

    def artifact(self, path: str) -> None:
        """Save a file in the run."""
        self._run.save(path, base_path=os.path.dirname(os.path.abspath(path)), policy="now")

    def finish(self, reason: str | BaseException | None) -> None:
        """Finish the run. An error is a crash; an early stop is a setting."""
        if isinstance(reason, BaseException):
            self._run.finish(state="crashed", error=named_error(reason))
            return
        if reason is not None:
            self._run.config.update({"stop_reason": reason})
        self._run.finish(state="aborted" if reason in ("SIGINT", "SIGTERM") else "success")
