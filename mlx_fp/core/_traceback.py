"""Shorten the traceback of an error that leaves the library: the frames of users stay, most of the library's go.

A run calls a user's function through about 35 frames of its own: generators, context managers, the compiled function.
They tell a user nothing. The environment variable `MLX_FP_TRACEBACK=full` keeps all frames, for example for a report of
a bug in the library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["ShortTraceback", "shorten"]

_VARIABLE = "MLX_FP_TRACEBACK"

_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep

_GO_BETWEENS = ("contextlib", "functools", "more_itertools", "toolz", "mlx.utils")
"""Modules, and packages, that call functions for others. Their frames go where the library called them."""


class ShortTraceback:
    """A context that shortens the traceback of an exception that leaves it.

    It is a class, because a context manager of `contextlib` restores the traceback that it received.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Shorten the traceback; the exception goes on."""
        if error is not None:
            shorten(error)


def shorten(error: BaseException) -> None:
    """Drop frames of the library from the traceback of an exception, and of each exception in its chain.

    These frames stay: the first, which called the rest; every frame that is not the library's; and the last, which
    raised the exception. Class, message and notes stay as they are. Call it where an exception leaves the library.

    >>> try:
    ...     int("x")
    ... except ValueError as error:
    ...     shorten(error)
    """
    if os.environ.get(_VARIABLE, "").strip().lower() == "full":
        return
    for link in _chain(error):
        entries = list(_entries(link.__traceback__))
        if len(entries) > 2:
            link.__traceback__ = _linked([entries[0], *_outside(entries), entries[-1]])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and every one that led to it."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            pending += [link.__cause__, link.__context__]
            yield link


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _outside(entries: list[TracebackType]) -> Iterator[TracebackType]:
    """Yield the entries between the first and the last that are not the library's."""
    inside = _is_library(entries[0])
    for entry in entries[1:-1]:
        inside = _is_library(entry) or (inside and _is_go_between(entry))
        if not inside:
            yield entry


def _is_library(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _is_go_between(entry: TracebackType) -> bool:
    name = str(entry.tb_frame.f_globals.get("__name__"))
    return any(name == module or name.startswith(f"{module}.") for module in _GO_BETWEENS)


def _linked(entries: list[TracebackType]) -> TracebackType | None:
    """Return a traceback of the entries; the given ones stay as they are."""
    linked: TracebackType | None = None
    for entry in reversed(entries):
        linked = TracebackType(linked, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return linked
