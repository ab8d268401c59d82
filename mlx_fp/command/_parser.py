"""The words of the command line: the subcommands, their arguments, and the help. It needs no MLX."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ._usage import UsageError, unknown_word

__all__ = ["parse", "parser"]

_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files"}
"""The functions of shells that complete the name of a file, as shtab names them."""

_PROGRAM = "mlx-fp"

_SUBCOMMANDS: Mapping[str, str] = {
    "run": "train an experiment",
    "settings": "list the settings of an experiment: paths, values, types",
    "check": "build everything, compute one batch, and predict the memory; trains nothing",
    "sweep": "train an experiment under several settings",
    "bench": "measure the rate of the compiled step",
    "runs": "list the runs below a folder, newest first",
    "compare": "compare runs: their figures, and the settings that differ",
    "report": "write the report of a run, or of several, as a page of HTML",
    "show": "list the arrays and the metadata of a checkpoint",
    "new": "write a first project of one file",
}

_VALUES = "value of a setting, for example optimizer.learning_rate=1e-3; see `mlx-fp settings FILE`"


_SEVERAL_VALUES = "values of a setting, divided by commas; a setting with one value is the same in all runs"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest right word."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. For example, shtab makes the completion of a shell from it.

    >>> parser().parse_args(["settings", "train.py"]).target
    'train.py'
    """
    return _parsers()[0]


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command line. Options may come before, between and after the other words.

    Raises:
        UsageError: A word is unknown or missing; the message has the nearest right one.

    >>> parse(["run", "--quiet", "train.py", "epochs=3"]).changes
    ['epochs=3']
    """
    whole, subparsers = _parsers()
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or words[0] != name:
        return whole.parse_args(words)
    if name not in subparsers:
        raise unknown_word("command", name, subparsers)
    arguments, others = subparsers[name].parse_known_intermixed_args(words[1:])
    if others:
        if not others[0].startswith("-"):
            raise UsageError(f"`{_PROGRAM} {name}` takes no further word; got {others[0]!r}")
        options = [option for action in subparsers[name]._actions for option in action.option_strings]
        raise unknown_word(f"option of `{_PROGRAM} {name}`", others[0].partition("=")[0], options)
    arguments.command = name
    return arguments


def _parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser of everything, and the parser of each subcommand by name."""
    whole = _Parser(_PROGRAM, description="Train and inspect experiments that Python files define.", allow_abbrev=False)
    whole.add_argument("--version", action="version", version=f"mlx-fp {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    named = {
        name: commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.", allow_abbrev=False)
        for name, words in _SUBCOMMANDS.items()
    }
    for name in ("run", "settings", "check", "sweep", "bench"):
        _add_experiment(named[name], "path=a,b" if name == "sweep" else "path=value")
    _add_run(named["run"])
    _add_sweep(named["sweep"])
    _add_files(named)
    bench = named["bench"]
    bench.add_argument("--seconds", type=_positive, default=3.0, metavar="S", help="time to measure for (default: 3)")
    return whole, named


def _add_experiment(target: argparse.ArgumentParser, change: str) -> None:
    """Add the file of an experiment, and changes of its settings."""
    of_file = "Python file that defines the experiment, with the name of its variable where there are several"
    _completed(target.add_argument("target", metavar="FILE[:NAME]", help=of_file))
    several = "values of a setting, divided by commas; a setting with one value is the same in all runs"
    target.add_argument(
        "changes", nargs="*", default=[], metavar=change, help=several if change == "path=a,b" else _VALUES
    )
    toml = target.add_argument(
        "-c", "--config", type=Path, action="append", default=[], metavar="TOML", help="file of settings by path"
    )
    _completed(toml)


def _add_run(target: argparse.ArgumentParser) -> None:
    target.add_argument(
        "--resume", metavar="FROM", help="go on from `latest` or `best` of the run's folder, or from a checkpoint"
    )
    _add_out(target, "folder of the run (default: runs/NAME/TIME; with --resume, the newest one)")
    target.add_argument(
        "--ranks",
        type=_positive_count,
        default=1,
        metavar="N",
        help="train in N processes (default: 1)",
    )
    target.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def _add_sweep(target: argparse.ArgumentParser) -> None:
    _add_out(target, "folder of the runs (default: runs/NAME/TIME)")
    target.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def _add_files(named: Mapping[str, argparse.ArgumentParser]) -> None:
    """Add the arguments of the subcommands on files."""
    _add_path(named["runs"], "folder", "DIR", "folder to look in (default: runs)", nargs="?", default=Path("runs"))
    _add_path(named["compare"], "paths", "DIR", "folder or bundle of a run", nargs="+")
    _add_path(named["report"], "path", "DIR", "folder or bundle of a run, or a folder with several runs below it")
    html = named["report"].add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="page to write (default: report.html in the folder)"
    )
    _completed(html)
    _add_path(named["show"], "path", "CHECKPOINT", "file, or folder of a run, whose newest checkpoint is shown")
    _add_path(named["new"], "folder", "DIR", "folder of the project, which is made where it is missing")


def _add_path(
    target: argparse.ArgumentParser,
    name: str,
    shown: str,
    words: str,
    nargs: str | None = None,
    default: Path | None = None,
) -> None:
    _completed(target.add_argument(name, type=Path, metavar=shown, help=words, nargs=nargs, default=default))


def _add_out(target: argparse.ArgumentParser, words: str) -> None:
    _completed(target.add_argument("-o", "--out", type=Path, metavar="DIR", help=words))


def _completed(action: argparse.Action) -> None:
    """Let the completion of a shell offer files for an argument."""
    action.complete = _FILES  # type: ignore[attr-defined]  # shtab reads this attribute


def _positive_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a count, 1 or more, is expected; got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is expected; got {text!r}")
    return seconds
