"""Call a function with the arrays of a batch as its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import TypeVar

from ._signature import POSITIONAL, Function, name_of, signature_of
from ._types import Batch

__all__ = ["call_with_batch"]

T = TypeVar("T")


def call_with_batch(fn: Callable[..., T], first: object, batch: Batch, what: str = "loss") -> T:
    """Call `fn` with a first argument and a batch.

    The call is `fn(first, **batch)` for a dict, `fn(first, *batch)` for a tuple or list, and `fn(first, batch)` for
    anything else. A batch that does not fit the parameters of `fn` raises TypeError, which names both sides; `what` is
    the role of `fn` in the message.

    >>> call_with_batch(lambda model, x, *, y: (model, x, y), "m", {"y": 2, "x": 1})
    ('m', 1, 2)
    >>> call_with_batch(lambda model, x, y: None, "m", {"x": 1})
    Traceback (most recent call last):
    TypeError: loss '<lambda>' takes (x, y) but the batch has keys (x): no key fills 'y'
    """
    if isinstance(batch, dict):
        _check_keys(fn, batch, what)
        return fn(first, **batch)
    values = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    parameters = signature_of(fn)
    if parameters is not None:
        _check_value_count(fn, parameters, len(values), what)
    return fn(first, *values)


def _check_keys(fn: Function, batch: Mapping[object, object], what: str) -> None:
    """Raise TypeError where the keys of a batch do not fit the keyword parameters of a function."""
    invalid = [k for k in batch if not (isinstance(k, str) and k.isidentifier())]
    if invalid:
        raise TypeError(
            f"{what} {name_of(fn)!r} takes keyword arguments, but the batch key {invalid[0]!r} is not an identifier; "
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
            f"{what} {name_of(fn)!r} takes ({', '.join(takes)}) but the batch has keys ({', '.join(map(str, batch))}): "
            + "; ".join(missing + extra)
        )


def _check_value_count(fn: Function, parameters: Sequence[Parameter], count: int, what: str) -> None:
    """Raise TypeError where a function does not take `count` values after its first argument."""
    plain = [p for p in parameters if p.kind in POSITIONAL][1:]
    minimum = sum(p.default is Parameter.empty for p in plain)
    maximum = count if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters) else len(plain)
    keyword = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
    if keyword or not minimum <= count <= maximum:
        takes = ", ".join([p.name for p in plain] + keyword)
        raise TypeError(
            f"{what} {name_of(fn)!r} takes ({takes}) but the batch has {count} value{'s' * (count != 1)}; "
            "a dict batch fills parameters by name, a tuple or list by position; whole arrays become batches by "
            "data.arrays(x, y) and data.batch(n)"
        )
