"""The entry of the command line: parse the words, call the subcommand, return the exit status."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import cast

from ..core._traceback import ShortTraceback
from ._parser import parse, parser
from ._usage import UsageError

__all__ = ["main"]

_USAGE, _INTERRUPTED, _CLOSED = 2, 130, 141
"""The exit status of a wrong word, of Ctrl-C, and of an output that nobody reads any more."""

_MODULES: Mapping[str, tuple[str, str]] = {
    "run": ("_run", "run_experiment"),
    "settings": ("_settings", "list_settings"),
    "check": ("_check", "check_experiment"),
    "sweep": ("_sweep", "sweep_experiment"),
    "bench": ("_bench", "bench_experiment"),
    "runs": ("_runs", "list_runs"),
    "compare": ("_runs", "compare_runs"),
    "report": ("_report", "write_report"),
    "show": ("_show", "show_checkpoint"),
    "new": ("_new", "write_project"),
}
"""The module and the function of each subcommand. A module is imported on use, because most of them need MLX."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line, and return its exit status.

    Args:
        words: The words after the name of the program. Default: those of this process.

    Returns:
        0; 2 for a wrong path, name or value, with one line on standard error; 128 + n for a run that signal n ended.

    >>> main(["settigns", "train.py"])
    2
    """
    given = sys.argv[1:] if words is None else list(words)
    try:
        with ShortTraceback():
            status = _dispatched(given)
            sys.stdout.flush()  # an output that nobody reads is an error here, not at the end of the interpreter
            return status
    except UsageError as error:
        if os.environ.get("MLX_RANK", "0") == "0":  # all processes of a run read the same words
            print(f"mlx-fp: {error}", file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end
        return _CLOSED


def _dispatched(words: Sequence[str]) -> int:
    arguments = parse(words)
    if arguments.command is None:
        parser().print_help()
        return _USAGE
    module, name = _MODULES[arguments.command]
    function = getattr(import_module(f"{__package__}.{module}"), name)
    return cast(Callable[[Namespace], int], function)(arguments)
