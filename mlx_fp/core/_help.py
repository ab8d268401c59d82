"""Show the parameters that a function takes as `**options`, in its signature and its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any, NamedTuple, TypeVar

__all__ = ["Shown", "show_parameters"]

F = TypeVar("F", bound=Callable[..., Any])


class Shown(NamedTuple):
    """A keyword parameter, for readers."""

    name: str
    annotation: Any
    default: Any
    words: str


def show_parameters(fn: F, parameters: Sequence[Shown]) -> F:
    """Put parameters in the place of `**options` of a function, and at the end of the `Args` of its docstring.

    >>> def train(*, quiet: bool = False, **options):
    ...     '''Train.
    ...
    ...     Args:
    ...         quiet: Whether to show nothing.
    ...     '''
    >>> train = show_parameters(train, [Shown("epochs", "int", 1, "Passes over the data.")])
    >>> inspect.signature(train)
    <Signature (*, quiet: 'bool' = False, epochs: 'int' = 1)>
    >>> print(inspect.getdoc(train))
    Train.
    <BLANKLINE>
    Args:
        quiet: Whether to show nothing.
        epochs: Passes over the data.
    """
    signature = inspect.signature(fn)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    given = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.annotation)
        for one in parameters
    ]
    fn.__signature__ = signature.replace(parameters=[*own, *given])  # type: ignore[attr-defined]  # read by inspect
    if fn.__doc__:  # none under -OO
        fn.__doc__ = _with_arguments(fn.__doc__, parameters)
    return fn


def _with_arguments(docstring: str, parameters: Sequence[Shown]) -> str:
    """Return a docstring with parameters at the end of its `Args`, indented as in a function of a module."""
    head, args, rest = docstring.partition("    Args:\n")
    own, gap, tail = rest.partition("\n\n")
    lines = [
        line
        for one in parameters
        for line in wrap(f"{one.name}: {one.words}", 112, initial_indent=" " * 8, subsequent_indent=" " * 12)
    ]
    end = own.rfind("\n" + " " * 4) if not gap and not own.rsplit("\n", 1)[-1].strip() else len(own)
    return "".join([head, args, "\n".join([own[:end], *lines]), own[end:], gap, tail])
