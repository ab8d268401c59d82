"""Call a user's function with only the context that it names.

The values fill the first positional parameters. Context fills the parameters with an offered name. For example,
`lambda row, epoch: …` receives a row and the context `epoch`. The signature is read once, when the pipeline is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from ._errors import nearest
from ._signature import POSITIONAL, Function, name_of, signature_of

__all__ = ["WithContext", "with_context"]


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
