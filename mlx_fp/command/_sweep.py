"""`mlx-fp sweep FILE`: train an experiment under several settings."""

from __future__ import annotations

from argparse import Namespace

from ..across._world import world
from ..core._user_path import user_path
from ..experiments._experiment import override
from ..experiments._sweep import sweep
from ._building import built, length_of
from ._loading import loaded_experiment
from ._places import run_folder
from ._report import write_sweep_page
from ._values import changes_of, grid_of

__all__ = ["sweep_experiment"]


def sweep_experiment(arguments: Namespace) -> int:
    """Train the experiment of a file once for each combination of values, and print the table of the trials.

    A sweep in a folder that exists continues the trials in it; those that are complete do not train again.

    Args:
        arguments: The arguments of `sweep` on the command line.

    Returns:
        0, or 128 + n for a sweep that signal n ended.
    """
    resume = "latest" if arguments.out is not None and user_path(arguments.out).is_dir() else None
    across = world()
    with loaded_experiment(arguments.target) as target:
        changed = override(changes_of(target, [], arguments.config))(target)
        grid = grid_of(changed, arguments.changes)
        changed = override(length_of(grid))(changed)
        for path, values in grid.items():
            for value in values:
                built(changed, {path: value})
        out = run_folder(changed.name, arguments.out, None, across)
        result = sweep(grid, quiet=arguments.quiet, across=across, out=out, resume=resume)(changed)
        if not across.rank:
            write_sweep_page(out)
            print(f"{result}\nfolder {out}")
        report = result.trials[-1].report
        return 1 if report is None else report.exit_status
