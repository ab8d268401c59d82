"""Show the keyword parameters behind `**options` in the signature and the docstring of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import NamedTuple, TypeVar

__all__ = ["Shown", "show_parameters"]

F = TypeVar("F", bound=Callable[..., object])


class Shown(NamedTuple):
    """Describe a keyword parameter for readers: its name, annotation, default value and meaning."""

    name: str
    annotation: object
    default: object
    words: str


def show_parameters(fn: F, parameters: Sequence[Shown]) -> F:
    """Replace `**options` in the signature of a function, and append the parameters to the `Args` of its docstring.

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
    named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            shown.name, inspect.Parameter.KEYWORD_ONLY, default=shown.default, annotation=shown.annotation
        )
        for shown in parameters
    ]
    fn.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]  # read by inspect
    if fn.__doc__:  # `python -OO` removes docstrings
        fn.__doc__ = _with_arguments(fn.__doc__, parameters)
    return fn


def _with_arguments(docstring: str, parameters: Sequence[Shown]) -> str:
    """Append parameters to the `Args` of a docstring, with the indentation of a module-level function."""
    head, args, rest = docstring.partition("    Args:\n")
    listed, gap, tail = rest.partition("\n\n")
    lines = [
        line
        for option in parameters
        for line in wrap(f"{option.name}: {option.words}", 112, initial_indent=" " * 8, subsequent_indent=" " * 12)
    ]
    end = listed.rfind("\n" + " " * 4) if not gap and not listed.rsplit("\n", 1)[-1].strip() else len(listed)
    return "".join([head, args, "\n".join([listed[:end], *lines]), listed[end:], gap, tail])
