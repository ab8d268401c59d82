"""Call a user's function with only the context that it names.

The values fill the first positional parameters. Context fills the parameters with an offered name. For example,
`lambda row, epoch: …` receives a row and the context `epoch`. The signature is read once, when the pipeline is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, SupportsFloat, TypeAlias

from ._errors import nearest, unknown

__all__ = [
    "POSITIONAL",
    "Function",
    "WithContext",
    "arguments",
    "check_types",
    "keyword_names",
    "name_of",
    "returned_number",
    "signature_of",
    "with_context",
]

Function: TypeAlias = Callable[..., Any]
"""A user's function. Its parameters and its result are its own."""

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
"""The kinds of parameters that take an argument by position."""


@dataclass(frozen=True, slots=True)
class WithContext:
    """Hold a function and the names of its context; the call is `fn(*values, **context)`.

    Where `context` is empty, `fn` may be called without context. For a function that takes only values, `fn` is that
    function itself.
    """

    fn: Function
    context: tuple[str, ...]

    def __call__(self, *values: object, **context: object) -> Any:
        """Call the function with the values and the part of the context that it uses."""
        return self.fn(*values, **{name: context[name] for name in self.context})


def with_context(fn: Function, *, offers: Sequence[str], values: int = 1, what: str = "function") -> WithContext:
    """Return `call(*values, **context)`, which passes to `fn` the values and the context that `fn` names.

    A parameter with a default and without an offered name keeps its default. A function with `**kwargs` receives all of
    the context. A function with fewer positional parameters than values does not receive the last values.

    Args:
        fn: A user's function.
        offers: The names of the context. Each call must provide all of them.
        values: The number of values.
        what: The role of the function, for messages. For example, "map function".

    Raises:
        TypeError: `fn` is not callable, or requires a parameter that is neither a value nor an offered name.

    >>> scale = with_context(lambda row, epoch, rate=0.5: row * epoch * rate, offers=("epoch", "index"))
    >>> scale(10, epoch=2, index=0), scale.context
    (10.0, ('epoch',))
    >>> with_context(lambda row, shard: row, offers=("epoch", "index"), what="map function")
    Traceback (most recent call last):
    TypeError: map function '<lambda>' requires 'shard', which is not on offer; it may name: epoch, index
    """
    if not callable(fn):
        raise TypeError(f"a {what} is something to call; got {fn!r}")
    parameters = signature_of(fn)
    if parameters is None:
        return WithContext(fn, ())
    room = _positional_count(parameters, values)
    keys, everything = _context(fn, parameters[room:], offers, what)
    takes = values if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters) else room
    filled = [p.name for p in parameters[:room] if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    uses = tuple(name for name in offers if name not in filled) if everything else keys
    positional_only = {p.name: p.default for p in parameters[room:] if p.kind is Parameter.POSITIONAL_ONLY}
    if takes == values and not positional_only:
        return WithContext(fn, uses)

    def adapted(*args: object, **context: object) -> object:
        by_position = [context.pop(name, default) for name, default in positional_only.items()]
        return fn(*args[:takes], *by_position, **context)

    return WithContext(adapted, uses)


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


def _positional_count(parameters: Sequence[Parameter], values: int) -> int:
    """Return the number of values that positional parameters can receive."""
    return min(values, sum(p.kind in POSITIONAL for p in parameters))


def _context(
    fn: Function, parameters: Sequence[Parameter], offers: Sequence[str], what: str
) -> tuple[tuple[str, ...], bool]:
    """Return the offered names among the parameters, and whether `**kwargs` takes all offered names."""
    plain = [p for p in parameters if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    for p in plain:
        if p.name not in offers and p.default is Parameter.empty:
            similar = nearest(p.name, offers, n=1)
            hint = f" (did you mean {similar[0]!r}?)" if similar else ""
            offered = ", ".join(offers) or "nothing"
            raise TypeError(
                f"{what} {name_of(fn)!r} requires {p.name!r}, which is not on offer{hint}; it may name: {offered}"
            )
    everything = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    return tuple(p.name for p in plain if p.name in offers), everything
