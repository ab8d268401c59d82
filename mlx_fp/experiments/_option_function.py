"""Functions of options: a part of an experiment may be a function, whose parameters are then settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import TypeGuard

from ..core._signature import arguments, name_of, signature_of

__all__ = ["OptionFunction", "check_defaults", "option_values", "options_of", "takes_options"]

OptionFunction = Callable[..., object]
"""A function whose parameters are options with defaults, which returns a part of an experiment."""


def takes_options(part: object, section: str) -> TypeGuard[OptionFunction]:
    """Return whether a part is a function of options, and not the part itself, for example a module class or a verb.

    >>> takes_options(lambda width=8: None, "model"), takes_options(dict, "model")
    (True, False)
    """
    return isinstance(part, partial) or (isinstance(part, FunctionType) and section != "artifacts")


def option_values(function: OptionFunction) -> Mapping[str, object]:
    """Return the options of a function with their values; the arguments of a partial are options, too.

    >>> option_values(lambda width=8: None)
    {'width': 8}
    """
    if isinstance(function, partial):
        return arguments(function.func, function.args, function.keywords)
    return arguments(function, (), {})


def options_of(section: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a section by name, of options by path.

    >>> options_of("model", {"model.width": 16, "data.batch_size": 8})
    {'width': 16}
    """
    prefix = f"{section}."
    return {path.removeprefix(prefix): value for path, value in options.items() if path.startswith(prefix)}


def check_defaults(function: OptionFunction, section: str) -> None:
    """Raise TypeError unless each parameter of a function of options has a default.

    >>> check_defaults(lambda width: None, "model")
    Traceback (most recent call last):
    TypeError: the model '<lambda>' is a function of options; give width a default
    """
    parameters, name = (
        signature_of(function) or [],
        name_of(function.func if isinstance(function, partial) else function),
    )
    if several := next((p for p in parameters if p.kind is p.VAR_POSITIONAL), None):
        remedy = f"give the result of {name}(…), or a function of options that returns it"
        raise TypeError(f"the {section} {name!r} takes *{several.name}, and options have names: {remedy}")
    missing = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if missing:
        raise TypeError(f"the {section} {name!r} is a function of options; give {', '.join(missing)} a default")
