"""`mlx-fp report DIR`: the report of a run, or of several runs, as a page."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from ..core._errors import named_error
from ..core._user_path import user_path
from ..show import html
from ._bundles import FILE, read_run, run_files
from ._usage import UsageError

__all__ = ["write_folder_page", "write_report"]

_PAGE = "report.html"
"""The name of the page in the folder of a run."""


def write_report(arguments: Namespace) -> int:
    """Write the page of a run, and print its path. Of a folder with several runs below it, the page has all of them.

    Args:
        arguments: `path`, the run or the folder, and `out`, the page; by default the page is in that folder.

    Returns:
        The exit status 0.
    """
    given = user_path(arguments.path)
    folder = given if given.is_dir() else given.parent
    page = folder / _PAGE if arguments.out is None else user_path(arguments.out)
    if page.is_dir():
        raise UsageError(f"{str(page)!r} is a folder, and the name of a page is expected: {str(page / _PAGE)!r}")
    print(_written(given, page))
    return 0


def write_folder_page(folder: Path) -> None:
    """Write the page into the folder of a run or of a sweep. A failure is a line on standard error."""
    try:
        _written(folder, folder / _PAGE)
    except Exception as error:  # the run is complete, and its status counts
        print(f"mlx-fp: the page of {folder} is not written: {named_error(error)}", file=sys.stderr)


def _written(given: Path, page: Path) -> Path:
    """Write the page of a run, or else of the runs below a folder, the oldest first."""
    files = [] if not given.is_dir() or (given / FILE).exists() else run_files(given)
    complete = [file for file in reversed(files) if file.name == FILE]
    return html([read_run(file).bundle for file in complete or [given]], page)
