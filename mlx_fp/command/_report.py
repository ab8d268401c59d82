"""`mlx-fp report DIR`: the report of a run, or of several runs, as a page."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpointing._policy import BUNDLE
from ..checkpointing._run_folder import PAGE, STEPS, with_all_steps
from ..core._errors import named_error
from ..core._user_path import user_path
from ..show import html
from ._bundles import Run, read_run, run_files
from ._usage import UsageError, as_usage

__all__ = ["write_report", "write_sweep_page"]


def write_report(arguments: Namespace) -> int:
    """Write the page of a run, and print its path. Of a folder with several runs below it, the page has all of them.

    Args:
        arguments: `path`, the run or the folder, and `out`, the page; by default the page is in that folder.

    Returns:
        The exit status 0.
    """
    given = user_path(arguments.path)
    folder = given if given.is_dir() else given.parent
    page = folder / PAGE if arguments.out is None else user_path(arguments.out)
    if page.is_dir():
        raise UsageError(f"{str(page)!r} is a folder, and the name of a page is expected: {str(page / PAGE)!r}")
    print(_written(given, page))
    return 0


def write_sweep_page(folder: Path) -> None:
    """Write the page of the trials of a sweep into its folder. A failure is a line on standard error."""
    try:
        _written(folder, folder / PAGE)
    except Exception as error:  # the trials are complete, and their status counts
        print(f"mlx-fp: the page of {folder} is not written: {named_error(error)}", file=sys.stderr)


def _written(given: Path, page: Path) -> Path:
    """Write the page of a run, or else of the runs below a folder, the oldest first."""
    files = [] if not given.is_dir() or (given / BUNDLE).exists() else run_files(given)
    complete = [file for file in reversed(files) if file.name == BUNDLE]
    return html([_with_all_steps(read_run(file)) for file in complete or [given]], page)


def _with_all_steps(run: Run) -> Mapping[str, Any]:
    """Return the bundle of a run with the logged steps of its folder: the bundle has those of its last start."""
    folder = run.path.parent
    if run.path.name != BUNDLE or not (folder / STEPS).is_file():
        return run.bundle
    with as_usage(ValueError, OSError):
        return with_all_steps(run.bundle, folder)
