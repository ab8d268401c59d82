"""Write the report of a run, or of several runs, as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..core._files import write_whole
from ..core._user_path import user_path
from ..experiments._sweep import Sweep
from ..loop._report import Report
from ..page._page import page
from ..store._bundle import bundle

__all__ = ["Reported", "bundles_of", "html"]

Reported: TypeAlias = Report | Mapping[str, Any] | Sweep
"""A run, or the runs of a sweep: a Report, the dict of `read_bundle`, or a Sweep."""


def html(report: Reported | Iterable[Reported], path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Write the report page of a run, or of several runs, to a file that any browser shows and prints.

    The page has the end of the run, its best value, curves, tables of epochs, evaluations and checkpoints, the layers
    of the model, settings and environment. Several runs have their curves over each other, and a table in the order of
    the monitor. The file has no script and needs no network.

    Args:
        report: A Report, the dict of `read_bundle`, a Sweep, or a list of these. The environment of a Report is that of
            this process.
        path: The file to write. The default suffix is `.html`. A leading `~` is the home folder of the user.
        title: The heading of the page. By default it says how many runs the page has.

    Returns:
        The path of the file.

    Raises:
        TypeError: A report is of another type.
        ValueError: There is no run.

    >>> import tempfile
    >>> file = html({"rows": [], "stop_reason": "SIGINT"}, Path(tempfile.mkdtemp()) / "run", title="a run")
    >>> file.name, "<h1" in file.read_text(encoding="utf-8")
    ('run.html', True)
    """
    text = page(bundles_of(report, "html"), title=title)
    target = user_path(path)
    target = target if target.suffix else target.with_name(f"{target.name}.html")
    return write_whole(target, text.encode("utf-8"))


def bundles_of(report: Reported | Iterable[Reported], caller: str) -> list[Mapping[str, Any]]:
    """Return the plain values of one run or of several runs. A sweep gives its trials, with their settings.

    Raises:
        TypeError: A report is of another type.

    >>> bundles_of([{"rows": []}], "html")
    [{'rows': []}]
    """
    if isinstance(report, Sweep):
        trials = [trial for trial in report.trials if trial.report is not None]
        return [bundle(trial.report, settings=trial.settings) for trial in trials]
    if isinstance(report, Report):
        return [bundle(report)]
    if isinstance(report, Mapping):
        return [report]
    if isinstance(report, str) or not isinstance(report, Iterable):
        given = type(report).__name__
        raise TypeError(f"{caller} takes a Report, the dict of a bundle, a Sweep, or a list of these; got {given}")
    return [one for each in report for one in bundles_of(each, caller)]
