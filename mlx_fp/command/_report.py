"""`mlx-fp report DIR`: the report of a run as a page."""

from __future__ import annotations

from argparse import Namespace

from .. import show
from ..core._user_path import user_path
from ._bundles import read_run
from ._usage import UsageError

__all__ = ["write_report"]

_PAGE = "report.html"
"""The name of the page in the folder of a run."""


def write_report(arguments: Namespace) -> int:
    """Write the page of a run, and print its path.

    Args:
        arguments: `path`, the run, and `out`, the page; by default the page is in the folder of the run.

    Returns:
        The exit status 0.
    """
    run = read_run(arguments.path)
    page = run.path.parent / _PAGE if arguments.out is None else user_path(arguments.out)
    if page.is_dir():
        raise UsageError(f"{str(page)!r} is a folder, and the name of a page is expected: {str(page / _PAGE)!r}")
    print(show.html(run.bundle, page))
    return 0
