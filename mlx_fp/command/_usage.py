"""Errors of the person at the command line: one line each, with the nearest right name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core._errors import nearest, unknown

__all__ = ["UsageError", "as_usage", "error_text", "missing_path", "unknown_word"]


class UsageError(Exception):
    """A wrong path, name or value on the command line. The command prints its message, and ends with status 2."""


def unknown_word(kind: str, name: str, candidates: Iterable[str]) -> UsageError:
    """Return the error for a name that is not among the candidates.

    >>> unknown_word("command", "rnu", ["run", "runs"])
    UsageError("unknown command 'rnu': did you mean 'run'? known: run, runs")
    """
    return UsageError(unknown(kind, name, candidates))


def missing_path(kind: str, path: Path, pattern: str = "*") -> UsageError:
    """Return the error for a path without a file or folder, with the nearest name in the same folder.

    Args:
        kind: The kind of the path, for the message.
        path: The path.
        pattern: The pattern of the names that would be right. Default: all names.

    >>> missing_path("file", Path("/no/such.py"))
    UsageError("there is no file '/no/such.py': there is no folder '/no' either")
    """
    text = f"there is no {kind} {str(path)!r}"
    if not path.parent.is_dir():
        return UsageError(f"{text}: there is no folder {str(path.parent)!r} either")
    wanted = Path.is_dir if kind == "folder" else Path.exists
    names = sorted(each.name for each in path.parent.glob(pattern) if wanted(each) and not each.name.startswith("."))
    if similar := nearest(path.name, names, n=1):
        return UsageError(f"{text}: did you mean {str(path.parent / similar[0])!r}?")
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return UsageError(f"{text}; {str(path.parent)!r} has {shown or 'nothing of this kind'}")


@contextmanager
def as_usage(*kinds: type[Exception], beginning: str = "") -> Iterator[None]:
    """Turn errors of these classes inside the context into a `UsageError` with the same message.

    >>> with as_usage(ValueError, beginning="over.toml: "):
    ...     int("x")
    Traceback (most recent call last):
    mlx_fp.command._usage.UsageError: over.toml: invalid literal for int() with base 10: 'x'
    """
    try:
        yield
    except kinds as error:
        raise UsageError(beginning + error_text(error)) from error


def error_text(error: Exception) -> str:
    """Return the message of an error on one line, with its notes.

    >>> error_text(KeyError("no such\\nname"))
    'no such name'
    """
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    parts = (message, *_similar_attribute(error), *getattr(error, "__notes__", ()))
    return "; ".join(" ".join(str(part).split()) for part in parts)


def _similar_attribute(error: Exception) -> list[str]:
    """Return a question for the nearest name where an object lacks an attribute. Python asks it in tracebacks only."""
    if not isinstance(error, AttributeError) or error.name is None or error.obj is None or "did you mean" in str(error):
        return []
    names = [name for name in dir(error.obj) if not name.startswith("_")]
    return [f"did you mean {similar!r}?" for similar in nearest(error.name, names, n=1)]
