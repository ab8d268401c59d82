"""Shape batches for a loss: by selectors, by a function, or by the names of the loss's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter

from ..core._context import WithContext, with_context
from ..core._errors import unknown
from ..core._signature import name_of, signature_of
from ._call_text import call_text
from ._cursor import CONTEXT, EpochRead
from ._dataset import Operation
from ._rows import bind_context, row_operation, varies
from ._stack import describe_batch
from ._types import Item, ItemFunction, UserFunction

__all__ = ["bind", "bound", "collate", "fills"]

Selector = str | int | tuple[str | int, ...] | UserFunction
"""A key, an index, a path of keys and indices, or a function of the batch."""

NAMED: dict[str, Mapping[str, Selector]] = {"x": {"x": ()}, "xy": {"x": 0, "y": 1}}
"""The specs of `collate` that have a name."""

_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

ALIASES = (
    ("x", "input", "inputs", "feature", "features", "token", "tokens"),
    ("y", "target", "targets", "label", "labels"),
)
"""Groups of names; a name stands for each other name of its group when a batch is bound to a loss."""


def collate(spec: str | Mapping[str, Selector] | UserFunction) -> Operation:
    """Shape each batch into the arguments of a loss.

    For example, `collate({"x": "image", "y": ("meta", "label")})` makes a dict with `x` and `y`.

    Args:
        spec: One of these:

            - a dict of selectors by the name of an argument. A selector is a key, an index, a path of keys and indices,
              `()` for the whole batch, or a function;
            - a function of the batch, which gets the batch by position or as `batch`, and `epoch`, `index` and
              `kind` where it has parameters with these names;
            - `"x"`: the whole batch as `x`;
            - `"xy"`: a pair as `x` and `y`;
            - `"auto"`: a dict with `x` and `y`, a pair, or a single value.

    Raises:
        TypeError: `spec` or a selector is of another type, or a function requires another parameter.
        ValueError: No spec has this name. When the data are read: a path leads nowhere; the message describes the
            batch.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> batches = data.source([{"image": [1, 2], "meta": {"label": 3}, "name": "a"}])
    >>> list(pipe(batches, data.collate({"x": "image", "y": ("meta", "label"), "n": lambda batch: len(batch)})))
    [{'x': [1, 2], 'y': 3, 'n': 3}]
    >>> try:
    ...     list(pipe(batches, data.collate({"x": "picture"})))
    ... except ValueError as error:
    ...     print(error)
    collate finds no 'picture' for 'x': the batch is {image: list of 2, meta: {label: int}, name: str of 1}
    """
    label = call_text("collate", spec)
    if callable(spec):
        call = _named_function(spec)
        return row_operation(label, lambda epoch_read: _bind_batch_function(call, epoch_read), varies=varies(call))
    if spec == "auto":
        return row_operation(label, lambda epoch_read: _collate_auto, calls=False, divides=True)
    if isinstance(spec, str):
        if spec not in NAMED:
            raise ValueError(unknown("collate", spec, [*NAMED, "auto"]))
        return _select("collate", label, NAMED[spec])
    if not isinstance(spec, Mapping):
        raise TypeError(f"collate takes a name, a dict of selectors or a function; got {spec!r}")
    return _select("collate", label, spec)


def bind(to: Mapping[str, Selector] | Callable[..., object]) -> Operation:
    """Give the columns of a batch the names of a loss's parameters.

    A parameter takes the key of its own name, or else the key of an alias: x, input(s), feature(s) and token(s) stand
    for one another, and so do y, target(s) and label(s). A pair is bound by position. Keys without a parameter are left
    out.

    Args:
        to: The loss, whose first parameter is the model; or a dict of selectors, as for `collate`.

    Raises:
        TypeError: `to` is neither, or the loss has no parameter after the model.
        ValueError: When the data are read: no key fills a parameter, or two keys do; the message describes the batch.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> def loss(model, tokens, targets): ...
    >>> list(pipe(data.source([{"input": 1, "label": 2, "name": "a"}]), data.bind(loss)))
    [{'tokens': 1, 'targets': 2}]
    >>> paths = {"x": ("input", "x"), "y": ("target", 0)}
    >>> list(pipe(data.source([{"input": {"x": 1}, "target": [2]}]), data.bind(paths)))
    [{'x': 1, 'y': 2}]
    """
    label = call_text("bind", to)
    if isinstance(to, Mapping):
        return _select("bind", label, to)
    if not callable(to):
        raise TypeError(f"bind takes a loss or a dict of paths; got {to!r}")
    parameters = [p for p in (signature_of(to) or [])[1:] if p.kind not in _VARIADIC]
    names = {p.name: p.default is Parameter.empty for p in parameters}
    if not names:
        raise TypeError(f"bind takes a loss with parameters for the batch after the model; {name_of(to)!r} has none")
    return row_operation(
        label, lambda epoch_read: lambda batch: bound(batch, names, name_of(to)), calls=False, divides=True
    )


def bound(batch: Item, names: Mapping[str, bool], loss: str) -> dict[str, Item]:
    """Return the columns of a batch under the names of a loss's parameters; True marks a required one. See `bind`.

    >>> bound({"input": 1, "label": 2}, {"x": True, "y": True}, "loss")
    {'x': 1, 'y': 2}
    """
    if not isinstance(batch, dict):
        values = batch if isinstance(batch, (tuple, list)) else (batch,)
        if not sum(names.values()) <= len(values) <= len(names):
            raise ValueError(f"bind: {loss!r} takes ({', '.join(names)}); the batch is {describe_batch(batch)}")
        return dict(zip(names, values, strict=False))
    candidates = {name: _matching_keys(name, names, batch) for name in names}
    for name, keys in candidates.items():
        if len(keys) > 1 or (names[name] and not keys):
            why = f"both {' and '.join(map(repr, keys))} fill" if keys else "no key fills"
            raise ValueError(f"bind: {why} {name!r} of {loss!r}; the batch is {describe_batch(batch)}")
    chosen = {name: keys[0] for name, keys in candidates.items() if keys}
    used = list(chosen.values())
    repeated = sorted({key for key in used if used.count(key) > 1})
    if repeated:
        raise ValueError(
            f"bind: {repeated[0]!r} fills several parameters of {loss!r}; the batch is {describe_batch(batch)}"
        )
    return {name: batch[key] for name, key in chosen.items()}


def _named_function(fn: UserFunction) -> WithContext:
    return with_context(fn, offers=("batch", *CONTEXT), what="collate function")


def _bind_batch_function(call: WithContext, epoch_read: EpochRead) -> ItemFunction:
    """Return a function of the batch alone; the user's function may also take the batch by name."""
    if "batch" not in call.context:
        return bind_context(call, epoch_read)
    other_names = tuple(name for name in call.context if name != "batch")
    by_name = WithContext(lambda batch, **context: call.fn(batch, batch=batch, **context), other_names)
    return bind_context(by_name, epoch_read)


def _select(verb: str, label: str, spec: Mapping[str, Selector]) -> Operation:
    """Return the operation that makes a dict by the selectors of a spec."""
    binders = {name: _selector(verb, name, selector) for name, selector in spec.items()}

    def bind_selectors(epoch_read: EpochRead) -> ItemFunction:
        selectors = {name: bind_selector(epoch_read) for name, bind_selector in binders.items()}
        return lambda batch: {name: select(batch) for name, select in selectors.items()}

    functions = [selector for selector in spec.values() if callable(selector)]
    depends = any(varies(_named_function(function)) for function in functions)
    return row_operation(label, bind_selectors, calls=bool(functions), varies=depends, divides=not functions)


def _selector(verb: str, name: str, selector: Selector) -> Callable[[EpochRead], ItemFunction]:
    """Return a function of one reading of an epoch that returns the selector as a function of the batch."""
    if callable(selector):
        call = _named_function(selector)
        return lambda epoch_read: _bind_batch_function(call, epoch_read)
    path = selector if isinstance(selector, tuple) else (selector,)
    for key in path:
        if not isinstance(key, (str, int)):
            raise TypeError(f"{verb}: a selector of {name!r} is a key, an index, a path or a function; got {key!r}")
    return lambda epoch_read: lambda batch: _follow(verb, name, path, batch)


def _follow(verb: str, name: str, path: tuple[str | int, ...], batch: Item) -> Item:
    """Return the value at a path of a batch."""
    value = batch
    for key in path:
        try:
            if isinstance(key, int) and hasattr(value, "shape"):
                raise IndexError  # this index would select a row of the array, and not a column
            value = value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            container = "" if value is batch else f" in {describe_batch(value)}"
            hint = "; a column of an array is a function, lambda batch: batch[:, 0]" if hasattr(value, "shape") else ""
            message = f"{verb} finds no {key!r} for {name!r}{container}"
            raise ValueError(f"{message}: the batch is {describe_batch(batch)}{hint}") from None
    return value


def _collate_auto(batch: Item) -> dict[str, Item]:
    """Return a dict with `x` and `y` as it is, a pair as `x` and `y`, and a single value as `x`."""
    if isinstance(batch, dict):
        if {"x", "y"} <= batch.keys():
            return batch
        raise ValueError(f"collate('auto') takes a dict with x and y, a pair or one value; got {describe_batch(batch)}")
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2:
            return {"x": batch[0], "y": batch[1]}
        raise ValueError(f"collate('auto') takes a dict with x and y, a pair or one value; got {describe_batch(batch)}")
    return {"x": batch}


def fills(name: str, batch: Mapping[str, object], taken: Sequence[str] = ()) -> list[str]:
    """Return the keys of a batch that may fill a parameter of a loss; `taken` names the loss's other parameters.

    >>> fills("x", {"input": 1, "label": 2}), fills("x", {"a": 1, "b": 2})
    (['input'], [])
    """
    return _matching_keys(name, dict.fromkeys((name, *taken), True), batch)


def _matching_keys(name: str, names: Mapping[str, bool], batch: Mapping[str, object]) -> list[str]:
    """Return the key of this name, or else the keys of its aliases, except those that name another parameter."""
    if name in batch:
        return [name]
    aliases = next((group for group in ALIASES if name in group), ())
    return [key for key in aliases if key in batch and key not in names]
