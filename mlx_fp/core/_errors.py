"""Word error messages: the expected value, the actual value, and the place."""

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
"""The attribute of an exception that holds its own place."""


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> tuple[str, ...]:
    """Return up to `n` candidates that are similar to `name`.

    The order is: candidates with `name` as their initials, candidates with a similar spelling, candidates that begin
    with `name`. For example, `lr` has the initials of `learning_rate`.

    >>> nearest("wieght", ["weight", "bias"]), nearest("lr", ["eps", "learning_rate"])
    (('weight',), ('learning_rate',))
    >>> nearest("val", ["reduce", "validation", "validate_every"])
    ('validation', 'validate_every')
    """
    from difflib import get_close_matches  # imported here, because only an error needs it

    names = list(candidates)
    same_initials = [candidate for candidate in names if name == _initials(candidate)]
    completions = [candidate for candidate in names if len(name) > 2 and candidate.startswith(name)]
    similar = get_close_matches(name, names, n=n, cutoff=0.5)
    return tuple(dict.fromkeys([*same_initials, *similar, *completions]))[:n]


def _initials(name: str) -> str:
    """Shorten the last part of a path to its initials: `optimizer.learning_rate` becomes `optimizer.lr`."""
    above, dot, last = name.rpartition(".")
    words = [word for word in last.split("_") if word]
    return above + dot + "".join(word[0] for word in words) if len(words) > 1 else ""


def unknown(kind: str, name: str, candidates: Iterable[str]) -> str:
    """Return the message for a name that is not among the candidates.

    >>> unknown("event", "after_stp", ["before_step", "after_step"])
    "unknown event 'after_stp': did you mean 'after_step'? known: before_step, after_step"
    """
    names = list(candidates)
    similar = nearest(name, names, n=1)
    hint = f"did you mean {similar[0]!r}? " if similar else ""
    return f"unknown {kind} {name!r}: {hint}known: {', '.join(names) or 'none'}"


def is_count(value: object, least: int = 0) -> bool:
    """Tell whether a value is an int of at least `least`. True and False are no counts.

    >>> is_count(3), is_count(0, least=1), is_count(True), is_count(2.0)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@contextmanager
def located(**where: object) -> Iterator[None]:
    """Add a note with the place to any exception that leaves the context. Its class and message do not change.

    A value may be a function, for a place that moves. The function is called when the exception arrives.

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
    """Add a note with the place to an exception. A value that is a function is called now.

    An exception may have its own place, set by `placed`. Then the note has that place.

    >>> error = placed(KeyError("x"), batch=5)
    >>> note(error, {"epoch": lambda: 3, "batch": 8})
    >>> error.__notes__
    ['at epoch=3, batch=5']
    """
    place = {name: value() if callable(value) else value for name, value in where.items()}
    place |= {name: value for name, value in getattr(error, _PLACE, {}).items() if name in place}
    error.add_note("at " + ", ".join(f"{name}={value}" for name, value in place.items()))


@contextmanager
def noted_on(error: BaseException, message: str) -> Iterator[None]:
    """Turn a second error inside the context into a note on `error`, and suppress the second error.

    There are two exceptions. KeyboardInterrupt always leaves the context. SystemExit leaves it where `error` is an
    interrupt and no Exception. In both cases `error` becomes a note on the exception that leaves.

    >>> error = KeyError("x")
    >>> with noted_on(error, "the hook failed, too"):
    ...     raise ValueError("y")
    >>> error.__notes__
    ['the hook failed, too: ValueError: y']
    """
    try:
        yield
    except BaseException as second:
        is_exit = isinstance(second, SystemExit) and not isinstance(error, Exception)
        if is_exit or isinstance(second, KeyboardInterrupt):
            second.add_note(f"it came after {named_error(error)}")
            raise
        say_on(error, f"{message}: {named_error(second)}")


def named_error(error: BaseException) -> str:
    """Return the class and the message of an exception.

    >>> named_error(KeyError("x"))
    "KeyError: 'x'"
    """
    return f"{type(error).__name__}: {error}"


def say_on(error: BaseException, text: str) -> None:
    """Add a note to an exception, and log the note where Python does not print notes.

    Python prints no notes for SystemExit and for GeneratorExit, which closes a generator.

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
    """Give this place to any exception that leaves the context. Notes of outer contexts then have this place.

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
    """Give an exception its own place, which may differ from the place of the `raise`, and return the exception."""
    setattr(error, _PLACE, {**where, **getattr(error, _PLACE, {})})
    return error


def refuse_mask(holder: str, value: object, verb: str = "is") -> None:
    """Raise TypeError for a masked array of numpy. Batches have no masks, so the mask would be lost.

    >>> refuse_mask("column 'x'", [1.0])
    """
    if isinstance(value, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())):
        raise TypeError(
            f"{holder} {verb} a masked array of numpy, whose mask would be lost: "
            "fill it, as in x.filled(0), and give the mask as an array of its own where the loss needs it"
        )


class CheckpointError(ValueError):
    """Report a file that is no checkpoint, is damaged, or does not fit the run. The message names the file."""
