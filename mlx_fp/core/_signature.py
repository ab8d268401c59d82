"""Call a user's function with just the context that it names.

The values go to the first positional parameters. Context goes to parameters that bear an offered name, by
position or by keyword. Everything is decided once, when the pipeline is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, SupportsFloat

from ._errors import nearest, unknown

__all__ = ["Named", "arguments", "check_types", "name_of", "named", "returned_number", "signature_of", "spread"]

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Named:
    """A function and the context that it takes, `fn(*values, **context)`, `uses` naming the context.

    Where `uses` is empty, `fn` may be called without context; for a plain function it is that function itself.
    """

    fn: Callable[..., Any]
    uses: tuple[str, ...]

    def __call__(self, *values: Any, **context: Any) -> Any:
        """Call the function with the values and what it uses of the context."""
        return self.fn(*values, **{name: context[name] for name in self.uses})


def named(fn: Callable[..., Any], *, offers: Sequence[str], values: int = 1, what: str = "function") -> Named:
    """Return `call(*values, **context)`, which gives `fn` the values and the context that it names.

    `context` must hold every name in `offers`. A parameter with a default that is not on offer keeps its
    default; a required one raises TypeError here, naming it and what is on offer. A function that takes
    `**kwargs` gets all of the context. Fewer positional parameters than values: the last values are left out.

    >>> scale = named(lambda row, epoch, rate=0.5: row * epoch * rate, offers=("epoch", "index"))
    >>> scale(10, epoch=2, index=0), scale.uses
    (10.0, ('epoch',))
    >>> named(lambda row, shard: row, offers=("epoch", "index"), what="map function")
    Traceback (most recent call last):
    TypeError: map function '<lambda>' requires 'shard', which is not on offer; it may name: epoch, index
    """
    if not callable(fn):
        raise TypeError(f"a {what} is something to call; got {fn!r}")
    parameters = signature_of(fn)
    if parameters is None:
        return Named(fn, ())
    room = _room(parameters, values)
    keys, everything = _context(fn, parameters[room:], offers, what)
    takes = values if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters) else room
    filled = [p.name for p in parameters[:room] if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    uses = tuple(name for name in offers if name not in filled) if everything else keys
    only = {p.name: p.default for p in parameters[room:] if p.kind is Parameter.POSITIONAL_ONLY}
    if takes == values and not only:
        return Named(fn, uses)

    def fitted(*given: Any, **context: Any) -> Any:
        return fn(*given[:takes], *[context.pop(name, default) for name, default in only.items()], **context)

    return Named(fitted, uses)


def arguments(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each parameter gets in `fn(*args, **kwargs)`; TypeError, with candidates, unless that fits.

    What `**kwargs` take comes by its own names. Nothing is known of a builtin that does not tell its parameters, and
    no names of what `*args` take: then it is empty.

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
    known = [p.name for p in parameters if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    extras = [k for k in kwargs if k not in known]
    if extras and not any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        raise TypeError(f"{name_of(fn)}: {unknown('option', extras[0], known)}")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name_of(fn)}: {error}; it takes {signature}") from None
    bound.apply_defaults()
    found = dict(bound.arguments)
    for p in parameters:
        if p.kind is Parameter.VAR_POSITIONAL and found.pop(p.name):
            return {}
        if p.kind is Parameter.VAR_KEYWORD:
            found |= found.pop(p.name)
    return found


def check_types(fn: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise TypeError for a value that is no int, or no number, where the annotation of its parameter says so.

    >>> def made(dims: int): ...
    >>> check_types(made, {"dims": "4"})
    Traceback (most recent call last):
    TypeError: dims of made is an int; got '4'
    """
    for p in signature_of(fn) or ():
        value, whole, real = given.get(p.name, 0), p.annotation in (int, "int"), p.annotation in (float, "float")
        lacks = (whole and not hasattr(value, "__index__")) or (real and not hasattr(value, "__float__"))
        if lacks and value is not p.default:
            raise TypeError(f"{p.name} of {name_of(fn)} is {'an int' if whole else 'a number'}; got {value!r}")


def spread(fn: Callable[..., Any], first: Any, batch: Any, what: str = "loss") -> Any:
    """Call `fn(first, **batch)`, `fn(first, *batch)` or `fn(first, batch)`, as the batch is a dict, a sequence or else.

    Raise TypeError naming both sides when the batch and the parameters of `fn` do not fit.

    >>> spread(lambda model, x, *, y: (model, x, y), "m", {"y": 2, "x": 1})
    ('m', 1, 2)
    >>> spread(lambda model, x, y: None, "m", {"x": 1})
    Traceback (most recent call last):
    TypeError: loss '<lambda>' takes (x, y) but the batch has keys (x): no key fills 'y'
    """
    if isinstance(batch, dict):
        _check_keys(fn, batch, what)
        return fn(first, **batch)
    values = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    parameters = signature_of(fn)
    if parameters is not None:
        _check_count(fn, parameters, len(values), what)
    return fn(first, *values)


def returned_number(given: Any, promise: str) -> float:
    """Return the result of a user's function as a float; TypeError with the promise that it breaks otherwise.

    >>> returned_number(None, "monitor 'f' returns a number for each row")
    Traceback (most recent call last):
    TypeError: monitor 'f' returns a number for each row; it returned None
    """
    try:
        if isinstance(given, SupportsFloat):
            return float(given)
    except (TypeError, ValueError):  # an array of several numbers
        pass
    raise TypeError(f"{promise}; it returned {'None' if given is None else type(given).__name__}")


def name_of(fn: Any) -> str:
    """Return the name that a function, class or callable object is known by.

    >>> name_of(len), name_of(dict)
    ('len', 'dict')
    """
    return str(getattr(fn, "__name__", None) or getattr(fn, "name", None) or type(fn).__name__)


def signature_of(fn: Callable[..., Any]) -> list[Parameter] | None:
    """Return the parameters of a callable, None for a builtin that does not tell them.

    >>> [p.name for p in signature_of(lambda x, *, train: x)]
    ['x', 'train']
    """
    try:
        return list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError):
        return None


def _room(parameters: Sequence[Parameter], values: int) -> int:
    return min(values, sum(p.kind in _POSITIONAL for p in parameters))


def _context(
    fn: Callable[..., Any], parameters: Sequence[Parameter], offers: Sequence[str], what: str
) -> tuple[tuple[str, ...], bool]:
    """Return the offered names that the parameters take, and whether they take all there is."""
    plain = [p for p in parameters if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    for p in plain:
        if p.name not in offers and p.default is Parameter.empty:
            close = nearest(p.name, offers, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            offered = ", ".join(offers) or "nothing"
            raise TypeError(
                f"{what} {name_of(fn)!r} requires {p.name!r}, which is not on offer{hint}; it may name: {offered}"
            )
    everything = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    return tuple(p.name for p in plain if p.name in offers), everything


def _check_keys(fn: Callable[..., Any], batch: Mapping[Any, Any], what: str) -> None:
    odd = [k for k in batch if not (isinstance(k, str) and k.isidentifier())]
    if odd:
        raise TypeError(
            f"{what} {name_of(fn)!r} takes keyword arguments, but the batch key {odd[0]!r} is not an identifier; "
            f"the batch has keys ({', '.join(map(str, batch))})"
        )
    parameters = signature_of(fn)
    if parameters is None:
        return
    plain = [
        p
        for i, p in enumerate(parameters)
        if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY) and i > 0
    ]
    takes = [p.name for p in plain]
    missing = [f"no key fills {p.name!r}" for p in plain if p.default is Parameter.empty and p.name not in batch]
    extra = [f"no parameter takes {k!r}" for k in batch if k not in takes]
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        extra = []
    if missing or extra:
        raise TypeError(
            f"{what} {name_of(fn)!r} takes ({', '.join(takes)}) but the batch has keys ({', '.join(batch)}): "
            + "; ".join(missing + extra)
        )


def _check_count(fn: Callable[..., Any], parameters: Sequence[Parameter], count: int, what: str) -> None:
    plain = [p for p in parameters if p.kind in _POSITIONAL][1:]
    least = sum(p.default is Parameter.empty for p in plain)
    most = count if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters) else len(plain)
    keyword = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
    if keyword or not least <= count <= most:
        takes = ", ".join([p.name for p in plain] + keyword)
        raise TypeError(
            f"{what} {name_of(fn)!r} takes ({takes}) but the batch has {count} value{'s' * (count != 1)}; "
            "a dict batch fills parameters by name, a tuple or list by position; whole arrays become batches by "
            "data.arrays(x, y) and data.batch(n)"
        )
