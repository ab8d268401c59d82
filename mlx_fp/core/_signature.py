"""Read the signatures of functions, and check the arguments of a call by them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, SupportsFloat, TypeAlias

from ._errors import unknown

__all__ = [
    "POSITIONAL",
    "Function",
    "arguments",
    "check_types",
    "keyword_names",
    "name_of",
    "returned_number",
    "signature_of",
]

Function: TypeAlias = Callable[..., Any]
"""A user's function. Its parameters and its result are its own."""

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
"""The kinds of parameters that take an argument by position."""


def arguments(fn: Function, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, Any]:
    """Return the argument of each parameter in the call `fn(*args, **kwargs)`, defaults included.

    Arguments that `**kwargs` of `fn` receives are listed by their own names. The result is empty for a builtin without
    a readable signature. It is also empty where `*args` of `fn` receives arguments, because these have no names. A call
    that does not fit raises TypeError with candidates.

    >>> arguments(lambda dims, bias=True: None, (3,), {})
    {'dims': 3, 'bias': True}
    >>> arguments(lambda dims, bias=True: None, (3,), {"bais": False})
    Traceback (most recent call last):
    TypeError: <lambda>: unknown option 'bais': did you mean 'bias'? known: dims, bias
    """
    try:
        signature = inspect.signature(fn)
    except ValueError:
        return {}
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    extras = [k for k in kwargs if k not in names]
    if extras and not any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        raise TypeError(f"{name_of(fn)}: {unknown('option', extras[0], names)}")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name_of(fn)}: {error}; it takes {signature}") from None
    bound.apply_defaults()
    values = dict(bound.arguments)
    for p in parameters:
        if p.kind is Parameter.VAR_POSITIONAL and values.pop(p.name):
            return {}
        if p.kind is Parameter.VAR_KEYWORD:
            values |= values.pop(p.name)
    return values


def check_types(fn: Function, values: Mapping[str, object]) -> None:
    """Raise TypeError for a value that contradicts an annotation `int` or `float` of its parameter.

    >>> def linear(dims: int): ...
    >>> check_types(linear, {"dims": "4"})
    Traceback (most recent call last):
    TypeError: dims of linear is an int; got '4'
    """
    for p in signature_of(fn) or ():
        value, is_int, is_float = values.get(p.name, 0), p.annotation in (int, "int"), p.annotation in (float, "float")
        contradicts = (is_int and not hasattr(value, "__index__")) or (is_float and not hasattr(value, "__float__"))
        if contradicts and value is not p.default:
            raise TypeError(f"{p.name} of {name_of(fn)} is {'an int' if is_int else 'a number'}; got {value!r}")


def returned_number(result: object, promise: str) -> float:
    """Return the result of a user's function as a float.

    A result that is no number raises TypeError; `promise` is the broken contract in the message.

    >>> returned_number(None, "monitor 'f' returns a number for each row")
    Traceback (most recent call last):
    TypeError: monitor 'f' returns a number for each row; it returned None
    """
    try:
        if isinstance(result, SupportsFloat):
            return float(result)
    except (TypeError, ValueError):  # an array of several numbers
        pass
    raise TypeError(f"{promise}; it returned {'None' if result is None else type(result).__name__}")


def keyword_names(fn: Function, *, after: int) -> frozenset[str]:
    """Return the names of the parameters that can be filled by name, without the first `after` parameters.

    `**kwargs` adds no name, and a builtin without a readable signature has none.

    >>> sorted(keyword_names(lambda m, x, mask=None, *, scale=1.0, **rest: x, after=2))
    ['mask', 'scale']
    """
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return frozenset(p.name for p in (signature_of(fn) or [])[after:] if p.kind in kinds)


def name_of(fn: object) -> str:
    """Return the name of a function, a class or a callable object.

    >>> name_of(len), name_of(dict)
    ('len', 'dict')
    """
    return str(getattr(fn, "__name__", None) or getattr(fn, "name", None) or type(fn).__name__)


def signature_of(fn: Function) -> list[Parameter] | None:
    """Return the parameters of a callable, or None for a builtin without a readable signature.

    >>> [p.name for p in signature_of(lambda x, *, train: x)]
    ['x', 'train']
    """
    try:
        return list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError):
        return None
