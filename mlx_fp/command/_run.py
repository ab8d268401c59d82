"""`mlx-fp run FILE`: train an experiment, in one process or in several."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from ..across._errors import PeerError
from ..across._world import world
from ..core._errors import CheckpointError
from ..experiments._run import run
from ._building import built
from ._loading import loaded_experiment
from ._places import resume_source, run_folder
from ._ranks import start_ranks
from ._usage import UsageError, error_text
from ._values import changes_of

__all__ = ["run_experiment"]


def run_experiment(arguments: Namespace) -> int:
    """Train the experiment of a file in a folder of its own, and return the exit status.

    Args:
        arguments: The arguments of `run` on the command line.

    Returns:
        0, or 128 + n for a run that signal n ended.
    """
    if arguments.ranks > 1:
        return start_ranks(arguments.ranks, [sys.executable, "-m", "mlx_fp", *_words(arguments)])
    resume, across = resume_source(arguments.resume), world()
    with loaded_experiment(arguments.target) as target:
        changed = built(target, changes_of(target, arguments.changes, arguments.config))
        out = run_folder(changed.name, arguments.out, resume, across)
        if not arguments.quiet and not across.rank:
            print(f"folder {out}", flush=True)
        try:
            return run(quiet=arguments.quiet, across=across, out=out, resume=resume)(changed).exit_status
        except FileExistsError as error:
            if error.filename is None or Path(error.filename) != out:
                raise
            remedy = f"--resume latest --out {out} continues it, and another --out begins a new one"
            raise UsageError(f"the folder {str(out)!r} has a run already: {remedy}") from error
        except BlockingIOError as error:
            if error.filename is None or Path(error.filename) != out:
                raise
            raise UsageError(error_text(error)) from error
        except CheckpointError as error:
            if resume is None:
                raise
            raise UsageError(f"--resume {resume}: {error_text(error)}") from error
        except PeerError as error:  # the other process shows its own error, with its traceback
            print(f"mlx-fp: process {across.rank} ends: {error_text(error)}", file=sys.stderr)
            return 1


def _words(arguments: Namespace) -> Iterator[str]:
    """Yield the words of the same command for one process."""
    yield from ("run", arguments.target, *arguments.changes)
    yield from (word for file in arguments.config for word in ("--config", str(file)))
    yield from ("--resume", arguments.resume) if arguments.resume is not None else ()
    yield from ("--out", str(arguments.out)) if arguments.out is not None else ()
    yield from ("--quiet",) if arguments.quiet else ()
