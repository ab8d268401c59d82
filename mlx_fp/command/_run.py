"""`mlx-fp run FILE`: train an experiment, in one process or in several."""

from __future__ import annotations

from argparse import Namespace

from ..across._world import world
from ..experiments._run import run
from ._building import built
from ._loading import loaded_experiment
from ._values import changes_of

__all__ = ["run_experiment"]


def run_experiment(arguments: Namespace) -> int:
    """Train the experiment of a file, and return the exit status.

    Args:
        arguments: The arguments of `run` on the command line.

    Returns:
        0, or 128 + n for a run that signal n ended.
    """
    with loaded_experiment(arguments.target) as target:
        changed = built(target, changes_of(target, arguments.changes, arguments.config))
        report = run(quiet=arguments.quiet, across=world())(changed)
        return report.exit_status
