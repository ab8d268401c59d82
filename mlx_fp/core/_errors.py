"""Say what was expected, what came, and where."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

__all__ = [
    "CheckpointError",
    "is_count",
    "located",
    "named_error",
    "nearest",
    "note",
    "noted_on",
    "placed",
    "placed_at",
    "refuse_mask",
    "say_on",
    "unknown",
]

E = TypeVar("E", bound=Exception)

_PLACE = "_mlx_fp_place"


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> tuple[str, ...]:
    """Return up to `n` candidates like `name`: those whose initials it is, then similar ones, then those it begins.

    >>> nearest("wieght", ["weight", "bias"]), nearest("lr", ["eps", "learning_rate"])
    (('weight',), ('learning_rate',))
    >>> nearest("val", ["reduce", "validation", "validate_every"])
    ('validation', 'validate_every')
    """
    from difflib import get_close_matches  # only an error needs it

    known = list(candidates)
    initials = [one for one in known if name == _initials(one)]
    longer = [one for one in known if len(name) > 2 and one.startswith(name)]
    close = get_close_matches(name, known, n=n, cutoff=0.5)
    return tuple(dict.fromkeys([*initials, *close, *longer]))[:n]


def _initials(name: str) -> str:
    """Shorten the last part of a path of several words: `optimizer.learning_rate` to `optimizer.lr`."""
    above, dot, last = name.rpartition(".")
    words = [word for word in last.split("_") if word]
    return above + dot + "".join(word[0] for word in words) if len(words) > 1 else ""


def unknown(kind: str, name: str, candidates: Iterable[str]) -> str:
    """Word the message for a name that is not among the candidates.

    >>> unknown("event", "after_stp", ["before_step", "after_step"])
    "unknown event 'after_stp': did you mean 'after_step'? known: before_step, after_step"
    """
    known = list(candidates)
    close = nearest(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}: {hint}known: {', '.join(known) or 'none'}"


def is_count(value: object, least: int = 0) -> bool:
    """Tell whether a value is an int of at least `least`; True and False are none.

    >>> is_count(3), is_count(0, least=1), is_count(True), is_count(2.0)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@contextmanager
def located(**where: object) -> Iterator[None]:
    """Add a note saying where to any exception that passes; its class and message stay.

    A function among the values is asked then, for a place that moves.

    >>> try:
    ...     with located(epoch=3, batch=7):
    ...         raise ValueError("bad row")
    ... except ValueError as error:
    ...     error, error.__notes__
    (ValueError('bad row'), ['at epoch=3, batch=7'])
    """
    try:
        yield
    except Exception as error:
        note(error, where)
        raise


def note(error: BaseException, where: Mapping[str, object]) -> None:
    """Add a note saying where to an exception; a function among the values is asked for its place now.

    A place that the exception knows itself, by `placed`, is the one in the note.

    >>> error = placed(KeyError("x"), batch=5)
    >>> note(error, {"epoch": lambda: 3, "batch": 8})
    >>> error.__notes__
    ['at epoch=3, batch=5']
    """
    found = {name: value() if callable(value) else value for name, value in where.items()}
    found |= {name: value for name, value in getattr(error, _PLACE, {}).items() if name in found}
    error.add_note("at " + ", ".join(f"{name}={value}" for name, value in found.items()))


@contextmanager
def noted_on(error: BaseException, message: str) -> Iterator[None]:
    """Within, another error becomes a note of this one, and goes no further.

    Ctrl-C goes on, and so does `sys.exit` where this one is no error but an interrupt; then this one is the note.

    >>> error = KeyError("x")
    >>> with noted_on(error, "the hook failed, too"):
    ...     raise ValueError("y")
    >>> error.__notes__
    ['the hook failed, too: ValueError: y']
    """
    try:
        yield
    except BaseException as fault:
        leaves = isinstance(fault, SystemExit) and not isinstance(error, Exception)
        if leaves or isinstance(fault, KeyboardInterrupt):
            fault.add_note(f"it came after {named_error(error)}")
            raise
        say_on(error, f"{message}: {named_error(fault)}")


def named_error(error: BaseException) -> str:
    """Return the class and the message of an exception.

    >>> named_error(KeyError("x"))
    "KeyError: 'x'"
    """
    return f"{type(error).__name__}: {error}"


def say_on(error: BaseException, text: str) -> None:
    """Add a note to an exception; it goes to the log, too, where nobody sees notes: at an exit, in a closed stream.

    >>> error = KeyError("x")
    >>> say_on(error, "y")
    >>> error.__notes__
    ['y']
    """
    error.add_note(text)
    if isinstance(error, (SystemExit, GeneratorExit)):
        import logging

        logging.getLogger("mlx_fp").warning("%s", text)


@contextmanager
def placed_at(**where: object) -> Iterator[None]:
    """Within, an exception belongs to this place, whatever the notes around it say.

    >>> try:
    ...     with located(batch=3, stage="data"), placed_at(stage="figures"):
    ...         raise KeyError("x")
    ... except KeyError as error:
    ...     error.__notes__
    ['at batch=3, stage=figures']
    """
    try:
        yield
    except Exception as error:
        placed(error, **where)
        raise


def placed(error: E, **where: object) -> E:
    """Return an exception that knows where it belongs, which need not be the place at which it is raised."""
    setattr(error, _PLACE, {**where, **getattr(error, _PLACE, {})})
    return error


def refuse_mask(what: str, value: object, verb: str = "is") -> None:
    """Raise TypeError for a masked array of numpy's: batches have no masks, and it would lose its own.

    >>> refuse_mask("column 'x'", [1.0])
    """
    if isinstance(value, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())):
        raise TypeError(
            f"{what} {verb} a masked array of numpy's, whose mask would be lost: "
            "fill it, as in x.filled(0), and give the mask as an array of its own where the loss needs it"
        )


class CheckpointError(ValueError):
    """A file that is no checkpoint, or a damaged one, or one that does not fit; the message names the file."""
