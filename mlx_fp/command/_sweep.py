"""`mlx-fp sweep FILE`: train an experiment under several settings."""

from __future__ import annotations

from argparse import Namespace

from ..across._world import world
from ..experiments._experiment import override
from ..experiments._sweep import sweep
from ._building import built
from ._loading import loaded_experiment
from ._values import changes_of, grid_of

__all__ = ["sweep_experiment"]


def sweep_experiment(arguments: Namespace) -> int:
    """Train the experiment of a file once for each combination of values, and print the table of the trials.

    Args:
        arguments: The arguments of `sweep` on the command line.

    Returns:
        0, or 128 + n for a sweep that signal n ended.
    """
    with loaded_experiment(arguments.target) as target:
        changed = override(changes_of(target, [], arguments.config))(target)
        grid = grid_of(changed, arguments.changes)
        for path, values in grid.items():
            for value in values:
                built(changed, {path: value})
        result = sweep(grid, quiet=arguments.quiet, across=world())(changed)
        print(result)
        report = result.trials[-1].report
        return 1 if report is None else report.exit_status
