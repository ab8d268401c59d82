"""Shape batches for a loss: by selectors, by a function, or by the names of the loss's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any

from ..core._errors import unknown
from ..core._signature import WithContext, name_of, signature_of, with_context
from ._cursor import CONTEXT, Pass
from ._dataset import Operation
from ._rows import bind_context, each
from ._stack import describe

__all__ = ["bind", "bound", "collate"]

Selector = str | int | tuple[str | int, ...] | Callable[..., Any]
"""A key, an index, a path of both, or a function of the batch."""

NAMED: dict[str, Mapping[str, Selector]] = {"x": {"x": ()}, "xy": {"x": 0, "y": 1}}
"""The specs that have a name."""

_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

ALIASES = (
    ("x", "input", "inputs", "feature", "features", "token", "tokens"),
    ("y", "target", "targets", "label", "labels"),
)
"""Names that stand for one another when a batch is bound to a loss."""


def collate(spec: str | Mapping[str, Selector] | Callable[..., Any]) -> Operation:
    """Shape each batch: the last word on what a loss gets.

    `spec` is a dict of selectors, each a key, an index, a path of both, `()` for the whole batch, or a function;
    a function of the batch; `"x"`, the batch itself as `x`; `"xy"`, a pair as `x` and `y`; or `"auto"`, which takes a
    dict with `x` and `y`, a pair, or a single value. Functions get `batch` by position or by name, and what they name
    of `epoch`, `index` and `kind`. A path that leads nowhere is a ValueError that says what the batch has.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> batches = data.source([{"image": [1, 2], "meta": {"label": 3}, "name": "a"}])
    >>> list(pipe(batches, data.collate({"x": "image", "y": ("meta", "label"), "n": lambda batch: len(batch)})))
    [{'x': [1, 2], 'y': 3, 'n': 3}]
    >>> list(pipe(batches, data.collate({"x": "picture"})))
    Traceback (most recent call last):
    ValueError: collate finds no 'picture' for 'x': the batch is {image: list of 2, meta: {label: int}, name: str of 1}
    at operation=collate({x}), split=train, epoch=0, index=0
    """
    if callable(spec):
        call = _function(spec)
        return each(f"collate({name_of(spec)})", lambda now: _on_batch(call, now))
    if spec == "auto":
        return each("collate('auto')", lambda now: _automatic, calls=False)
    if isinstance(spec, str):
        if spec not in NAMED:
            raise ValueError(unknown("collate", spec, [*NAMED, "auto"]))
        return _selecting("collate", repr(spec), NAMED[spec])
    if not isinstance(spec, Mapping):
        raise TypeError(f"collate takes a name, a dict of selectors or a function; got {spec!r}")
    return _selecting("collate", "{" + ", ".join(spec) + "}", spec)


def bind(to: Mapping[str, Selector] | Callable[..., Any]) -> Operation:
    """Give batches the names that a loss takes: those of its parameters after the model, or those of a dict of paths.

    A parameter takes the key of its own name, or else of an alias: x, input(s), feature(s), token(s); y, target(s),
    label(s). Batches that are pairs are bound by position. Keys that the loss does not name are left out. A name that
    no key fills, or two do, is a ValueError that says what the batch has.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> def loss(model, tokens, targets): ...
    >>> list(pipe(data.source([{"input": 1, "label": 2, "name": "a"}]), data.bind(loss)))
    [{'tokens': 1, 'targets': 2}]
    >>> paths = {"x": ("input", "x"), "y": ("target", 0)}
    >>> list(pipe(data.source([{"input": {"x": 1}, "target": [2]}]), data.bind(paths)))
    [{'x': 1, 'y': 2}]
    """
    if isinstance(to, Mapping):
        return _selecting("bind", "{" + ", ".join(to) + "}", to)
    if not callable(to):
        raise TypeError(f"bind takes a loss or a dict of paths; got {to!r}")
    parameters = [p for p in (signature_of(to) or [])[1:] if p.kind not in _VARIADIC]
    names = {p.name: p.default is Parameter.empty for p in parameters}
    if not names:
        raise TypeError(f"bind takes a loss with parameters of the batch's after the model; {name_of(to)!r} has none")
    return each(f"bind({name_of(to)})", lambda now: lambda batch: bound(batch, names, name_of(to)), calls=False)


def bound(batch: Any, names: Mapping[str, bool], loss: str) -> dict[str, Any]:
    """Give a batch the names of a loss's parameters, each with whether it must be filled; see `bind`.

    >>> bound({"input": 1, "label": 2}, {"x": True, "y": True}, "loss")
    {'x': 1, 'y': 2}
    """
    if not isinstance(batch, dict):
        values = batch if isinstance(batch, (tuple, list)) else (batch,)
        if not sum(names.values()) <= len(values) <= len(names):
            raise ValueError(f"bind: {loss!r} takes ({', '.join(names)}); the batch is {describe(batch)}")
        return dict(zip(names, values, strict=False))
    keys = {name: _fills(name, names, batch) for name in names}
    for name, found in keys.items():
        if len(found) > 1 or (names[name] and not found):
            why = f"both {' and '.join(map(repr, found))} fill" if found else "no key fills"
            raise ValueError(f"bind: {why} {name!r} of {loss!r}; the batch is {describe(batch)}")
    used = [found[0] for found in keys.values() if found]
    twice = sorted({key for key in used if used.count(key) > 1})
    if twice:
        raise ValueError(f"bind: {twice[0]!r} fills several parameters of {loss!r}; the batch is {describe(batch)}")
    return {name: batch[found[0]] for name, found in keys.items() if found}


def _function(fn: Callable[..., Any]) -> WithContext:
    return with_context(fn, offers=("batch", *CONTEXT), what="collate function")


def _on_batch(call: WithContext, now: Pass) -> Callable[[Any], Any]:
    """Return a function of the batch; a function may also take the batch by its name."""
    if "batch" not in call.context:
        return bind_context(call, now)
    by_name = WithContext(lambda batch, **context: call.fn(batch, batch=batch, **context), _without_batch(call.context))
    return bind_context(by_name, now)


def _without_batch(uses: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in uses if name != "batch")


def _selecting(what: str, label: str, spec: Mapping[str, Selector]) -> Operation:
    getters = {name: _getter(what, name, selector) for name, selector in spec.items()}

    def selects(now: Pass) -> Callable[[Any], Any]:
        gets = {name: get(now) for name, get in getters.items()}
        return lambda batch: {name: get(batch) for name, get in gets.items()}

    return each(f"{what}({label})", selects, calls=any(map(callable, spec.values())))


def _getter(what: str, name: str, selector: Selector) -> Callable[[Pass], Callable[[Any], Any]]:
    """Return what makes of a pass a selector, as a function of the batch."""
    if callable(selector):
        call = _function(selector)
        return lambda now: _on_batch(call, now)
    path = selector if isinstance(selector, tuple) else (selector,)
    odd = [step for step in path if not isinstance(step, (str, int))]
    if odd:
        raise TypeError(f"{what}: a selector of {name!r} is a key, an index, a path or a function; got {odd[0]!r}")
    return lambda now: lambda batch: _follow(what, name, path, batch)


def _follow(what: str, name: str, path: tuple[str | int, ...], batch: Any) -> Any:
    value = batch
    for step in path:
        try:
            if isinstance(step, int) and hasattr(value, "shape"):
                raise IndexError  # it would be a row of the array
            value = value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            told = "" if value is batch else f" in {describe(value)}"
            hint = "; a column of an array is a function, lambda batch: batch[:, 0]" if hasattr(value, "shape") else ""
            where = f"{what} finds no {step!r} for {name!r}{told}"
            raise ValueError(f"{where}: the batch is {describe(batch)}{hint}") from None
    return value


def _automatic(batch: Any) -> dict[str, Any]:
    if isinstance(batch, dict):
        if {"x", "y"} <= batch.keys():
            return batch
        raise ValueError(f"collate('auto') takes a dict with x and y, a pair or one value; got {describe(batch)}")
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2:
            return {"x": batch[0], "y": batch[1]}
        raise ValueError(f"collate('auto') takes a dict with x and y, a pair or one value; got {describe(batch)}")
    return {"x": batch}


def fills(name: str, batch: Mapping[str, Any], taken: Sequence[str] = ()) -> list[str]:
    """Return the keys of a batch that may fill a parameter of a loss, whose others are `taken`.

    >>> fills("x", {"input": 1, "label": 2}), fills("x", {"a": 1, "b": 2})
    (['input'], [])
    """
    return _fills(name, dict.fromkeys((name, *taken), True), batch)


def _fills(name: str, names: Mapping[str, bool], batch: Mapping[str, Any]) -> list[str]:
    """Return the keys that may fill a name: its own, or else its aliases that are no other parameter's name."""
    if name in batch:
        return [name]
    same = next((group for group in ALIASES if name in group), ())
    return [key for key in same if key in batch and key not in names]
