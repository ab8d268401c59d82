"""Read the bundles of runs from paths of a command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpointing._policy import BUNDLE
from ..checkpointing._run_folder import STEPS
from ..core._user_path import user_path
from ..store._bundle import read_bundle
from ._usage import UsageError, as_usage, missing_path

__all__ = ["Run", "read_run", "run_figures", "run_files", "run_settings"]

_NO_FIGURES = {
    *("epoch", "batches", "examples", "steps", "epoch_loss", "validation_batches", "seconds", "monitor_value"),
    *("improved", "stale", "checkpoint", "timed"),
}
"""The fields of the row of an epoch that are no figures of the model."""

_NO_SETTINGS = {"out", "resume", "across"}
"""The options of a run that do not change its figures."""


class Run(NamedTuple):
    """The bundle of a run, and its file."""

    path: Path
    report: Mapping[str, Any]
    bundle: Mapping[str, Any]

    @property
    def end(self) -> str:
        """The reason of the end of the run."""
        return self.report.get("stop_reason") or "complete"

    @property
    def seconds(self) -> float:
        """The seconds of training, without validation."""
        return float(sum(row["seconds"] for row in self.report["rows"]))

    @property
    def steps(self) -> int:
        """The steps of the run."""
        return self.report["rows"][-1]["steps"] if self.report["rows"] else 0


def read_run(path: Path) -> Run:
    """Read the bundle of a run.

    Args:
        path: The folder of the run, or the file of a bundle.

    Raises:
        UsageError: There is no run at the path, or its file cannot be read; the message has the nearest path.
    """
    given = user_path(path)
    if not given.exists():
        raise missing_path("run", given)
    file = given / BUNDLE if given.is_dir() else given
    if not file.exists():
        runs = [str(each.parent) for each in run_files(given) if each.name == BUNDLE]
        below = f"; the runs below it: {', '.join(runs[:5])}" if runs else ""
        raise UsageError(f"{str(given)!r} is no folder of a run, which has a file {BUNDLE}{below}")
    with as_usage(ValueError, OSError):
        bundle = read_bundle(file)
    return Run(file, bundle["report"], bundle)


def run_files(folder: Path) -> list[Path]:
    """Return a file of each run in and below a folder, newest first: its bundle, or else its logged steps."""
    files = [file for name in (BUNDLE, STEPS) for file in folder.rglob(name) if file.is_file()]
    files = [file for file in files if file.name == BUNDLE or not (file.parent / BUNDLE).is_file()]
    return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def run_figures(run: Run) -> dict[str, object]:
    """Return the figures of a run by name: the best value of the monitor, and those of its last epoch."""
    report, rows = run.report, run.report["rows"]
    last = rows[-1] if rows else {}
    figures = {name: value for name, value in last.items() if name not in _NO_FIGURES and _is_figure(value)}
    best = {f"best {report['monitor_name']}": report["best_value"], "at step": report["best_step"]}
    length = {"epochs": len(rows), "steps": run.steps, "seconds": run.seconds, "ended": run.end}
    return {name: value for name, value in {**best, **figures, **length}.items() if value is not None}


def run_settings(run: Run) -> dict[str, object]:
    """Return the settings of a run by path: those of its experiment, the options of the run, and its environment."""
    setup = run.report.get("setup") or {}
    parts = {name: setup[name] for name in ("train", "validation", "optimizer") if name in setup}
    options = {name: value for name, value in setup.get("options", {}).items() if name not in _NO_SETTINGS}
    return {**run.bundle["environment"], **parts, **options, **run.bundle["settings"]}


def _is_figure(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
