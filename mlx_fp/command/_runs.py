"""`mlx-fp runs` and `mlx-fp compare`: tables of runs."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..checkpointing._run_folder import STEPS
from ..core._text import table
from ..core._user_path import user_path
from ..store._steps_file import read_steps
from ._bundles import Run, read_run, run_figures, run_files, run_settings
from ._usage import UsageError, as_usage, missing_path

__all__ = ["compare_runs", "list_runs"]

_LONGEST = 60
"""The longest text in a cell of a table of settings."""

_ABSENT = object()


def list_runs(arguments: Namespace) -> int:
    """Print a table of the runs in and below a folder, the newest first.

    Args:
        arguments: `folder` of the command line.

    Returns:
        The exit status 0. A bundle that cannot be read is named on standard error.
    """
    folder = user_path(arguments.folder)
    if not folder.is_dir():
        raise missing_path("folder", folder)
    rows = []
    for file in run_files(folder):
        try:
            rows.append((_folder_name(file, folder), _time_text(file), *_results(file)))
        except UsageError as error:
            print(f"mlx-fp: {error}", file=sys.stderr)
    if not rows:
        print(f"no runs in {folder}")
        return 0
    print(table([("run", "last change", "end", "best", "at step", "epochs", "steps", "seconds"), *rows], left=3))
    return 0


def _folder_name(file: Path, folder: Path) -> str:
    return file.parent.relative_to(folder).as_posix()


def _time_text(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m-%d %H:%M:%S")


def _results(file: Path) -> tuple[str, ...]:
    """Return the end, the best value and the length of a run; of one without a bundle yet, its last logged step."""
    if file.name == STEPS:
        with as_usage(ValueError, OSError):
            steps = read_steps(file)
        return ("none so far", "", "", "", str(steps[-1].get("step", "")) if steps else "", "")
    run = read_run(file)
    report, later = run.report, _later_step(run)
    best = "" if report["best_value"] is None else f"{report['monitor_name']} {_cell(report['best_value'])}"
    length = (str(len(report["rows"])), str(later or run.steps), f"{run.seconds:.1f}")
    return ("none so far" if later else _shortened(run.end), best, _cell(report["best_step"]), *length)


def _later_step(run: Run) -> int:
    """Return the last logged step of a run that was resumed after its bundle, and has not ended yet; 0 for others."""
    file = run.path.parent / STEPS
    if not file.is_file() or file.stat().st_mtime_ns <= run.path.stat().st_mtime_ns:
        return 0
    with as_usage(ValueError, OSError):
        steps = read_steps(file)
    last = int(steps[-1]["step"]) if steps else 0
    return last if last > run.steps else 0


def compare_runs(arguments: Namespace) -> int:
    """Print the figures of runs side by side, and the settings that differ.

    Args:
        arguments: `paths` of the command line, two or more.

    Returns:
        The exit status 0.
    """
    if len(arguments.paths) < 2:
        raise UsageError(f"compare needs two runs or more; got {str(arguments.paths[0])!r} alone")
    runs = [read_run(path) for path in arguments.paths]
    heads = _heads(arguments.paths)
    figures = [run_figures(run) for run in runs]
    print(_side_by_side("figure", heads, figures, list(dict.fromkeys(name for each in figures for name in each))))
    settings = [run_settings(run) for run in runs]
    names = [name for name in dict.fromkeys(name for each in settings for name in each) if _differs(name, settings)]
    print(f"\n{_side_by_side('setting', heads, settings, names)}" if names else "\nno setting differs")
    return 0


def _heads(paths: Sequence[Path]) -> list[str]:
    """Return a name for each run: the name of its folder, or the whole path where two have the same.

    >>> _heads([Path("runs/a/1"), Path("runs/a/2"), Path("b/2")])
    ['1', 'runs/a/2', 'b/2']
    """
    folders = [path.parent if path.suffix == ".json" else path for path in paths]
    counts = Counter(folder.name for folder in folders)
    return [folder.name if folder.name and counts[folder.name] == 1 else str(folder) for folder in folders]


def _differs(name: str, settings: Sequence[dict[str, object]]) -> bool:
    return len({repr(each.get(name, _ABSENT)) for each in settings}) > 1


def _side_by_side(kind: str, heads: Sequence[str], columns: Sequence[dict[str, object]], names: Sequence[str]) -> str:
    rows = [(name, *(_cell(column.get(name)) for column in columns)) for name in names]
    return table([(kind, *heads), *rows])


def _cell(value: object) -> str:
    """Return the text of a value; None is empty.

    >>> _cell(0.123456), _cell(None), _cell(12345.678)
    ('0.12346', '', '12346')
    """
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else _shortened(str(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
