"""Layers made of layers.

An entry is a Layer, an mlx.nn module or its class, or a callable. The parameters of positional entries are under
`layers.0`, `layers.1`, …; those of a named entry are under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

from ..core._context import with_context
from ..core._errors import is_count
from ..core._mlx import mx
from ..core._types import Params
from ._call import Inputs, Keywords, Output, Result
from ._composition import (
    Parts,
    PartsCall,
    as_arguments,
    as_value,
    composed,
    parts_of,
    run_each,
    run_in_sequence,
    taken_by_each,
    taken_by_first,
)
from ._layer import Apply, Layer, renamed
from ._lift import as_layer, lift
from ._module import Module

__all__ = ["add", "branch", "concat", "repeat", "residual", "sequential", "share", "stack"]


def sequential(*entries: object, **named: object) -> Layer:
    """Run entries one after the other.

    The first entry gets all arguments. A tuple or list is passed on as positional arguments, a dict as keyword
    arguments. Without entries, the layer is the identity.

    Args:
        entries: Positional entries, with parameters under `layers.i`.
        named: Named entries, with parameters under their names. They run after the positional entries.

    Returns:
        A Layer.

    >>> from mlx_fp import nn
    >>> model = nn.sequential(nn.linear(4, 8), nn.relu, head=nn.linear(8, 2))
    >>> nn.init(0)(model)["head"]["weight"].shape
    (2, 8)
    """
    parts = parts_of(entries, named)
    return composed("sequential", parts, run_in_sequence, taken_by_first)


def residual(*entries: object, **named: object) -> Layer:
    """Run entries as `sequential` does, and add the first positional input: `(…, d) -> (…, d)`.

    Args:
        entries: Positional entries, with parameters under `layers.i`.
        named: Named entries, with parameters under their names.

    Returns:
        A Layer.

    Raises:
        ValueError: There is no entry.

    >>> residual(lambda x: 2 * x).apply({"layers": [{}]}, mx.array(3))[0].item()
    9
    """

    def flow(parts_call: PartsCall, xs: Inputs, kw: Keywords) -> Output:
        if not xs:
            raise TypeError("residual adds its first positional input, and was called with keyword arguments only")
        return xs[0] + run_in_sequence(parts_call, xs, kw)

    parts = _at_least_one("residual", parts_of(entries, named))
    return composed("residual", parts, flow, taken_by_first)


def branch(*entries: object, **named: object) -> Layer:
    """Call every entry with the same arguments, and return the tuple of their outputs.

    Args:
        entries: Positional entries, with parameters under `layers.i`.
        named: Named entries, with parameters under their names.

    Returns:
        A Layer.

    Raises:
        ValueError: There is no entry.

    >>> y, _ = branch(lambda x: x + 1, lambda x: x * 2).apply({"layers": [{}, {}]}, mx.array(3))
    >>> [each.item() for each in y]
    [4, 6]
    """
    parts = _at_least_one("branch", parts_of(entries, named))
    return composed("branch", parts, run_each, taken_by_each)


def concat(*entries: object, axis: int = -1, **named: object) -> Layer:
    """Call every entry with the same arguments, and concatenate their outputs.

    For example, entries with outputs `(n, 3)` and `(n, 5)` give `(n, 8)`.

    Args:
        entries: Positional entries, with parameters under `layers.i`.
        axis: The axis of the concatenation; the last by default.
        named: Named entries, with parameters under their names.

    Returns:
        A Layer.

    Raises:
        ValueError: There is no entry.

    >>> concat(lambda x: x, lambda x: 2 * x).apply({"layers": [{}, {}]}, mx.array([1, 2]))[0].tolist()
    [1, 2, 2, 4]
    """

    def flow(parts_call: PartsCall, xs: Inputs, kw: Keywords) -> Output:
        return mx.concatenate(list(run_each(parts_call, xs, kw)), axis=axis)

    parts = _at_least_one("concat", parts_of(entries, named))
    return composed("concat", parts, flow, taken_by_each)


def add(*entries: object, **named: object) -> Layer:
    """Call every entry with the same arguments, and add their outputs.

    Args:
        entries: Positional entries, with parameters under `layers.i`.
        named: Named entries, with parameters under their names.

    Returns:
        A Layer.

    Raises:
        ValueError: There is no entry.

    >>> add(lambda x: x, lambda x: 2 * x).apply({"layers": [{}, {}]}, mx.array(3))[0].item()
    9
    """

    def flow(parts_call: PartsCall, xs: Inputs, kw: Keywords) -> Output:
        return reduce(lambda total, y: total + y, run_each(parts_call, xs, kw))

    parts = _at_least_one("add", parts_of(entries, named))
    return composed("add", parts, flow, taken_by_each)


def stack(count: int, factory: Callable[..., Any], *args: object, **kwargs: object) -> Layer:
    """Make `count` layers, each with its own parameters under `layers.i`, and run them one after the other.

    Args:
        count: The number of layers; 0 gives the identity.
        factory: An mlx.nn module class, or a function that returns a layer. It is called with `args` and `kwargs`.
            Without them, a function is called with the index of the layer if it takes one.
        args: Positional arguments of `factory`.
        kwargs: Keyword arguments of `factory`.

    Returns:
        A Layer.

    Raises:
        ValueError: `count` is not an int of 0 or more.
        TypeError: `factory` is a layer or is not callable.

    >>> from mlx_fp import nn
    >>> widths = nn.stack(2, lambda i: nn.linear(2 + i, 3 + i))
    >>> [p["weight"].shape for p in nn.init(0)(widths)["layers"]]
    [(3, 2), (4, 3)]
    """
    layers = [_layer_of_factory(factory, i, args, kwargs) for i in range(_checked_count(count))]
    return replace(sequential(*layers), name="stack")


def repeat(count: int, entry: object) -> Layer:
    """Run `count` copies of one entry one after the other, each with its own parameters under `layers.i`.

    Args:
        count: The number of copies; 0 gives the identity.
        entry: A Layer, an mlx.nn module or its class, or a callable.

    Returns:
        A Layer.

    >>> from mlx_fp import nn
    >>> [p["weight"].shape for p in nn.init(0)(repeat(2, nn.linear(3, 3)))["layers"]]
    [(3, 3), (3, 3)]
    """
    return replace(sequential(*[as_layer(entry, "repeat's entry")] * _checked_count(count)), name="repeat")


def share(count: int, entry: object) -> Layer:
    """Run one entry `count` times with one set of parameters, under the paths of the entry.

    Args:
        count: The number of calls; 0 gives the identity.
        entry: A Layer, an mlx.nn module or its class, or a callable.

    Returns:
        A Layer.

    >>> share(3, lambda x: 2 * x).apply({}, mx.array(1))[0].item()
    8
    """
    shared = as_layer(entry, "share's entry")
    times = _checked_count(count)

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        y = as_value(xs, kw)
        for _ in range(times):
            y, params = shared.apply.run(params, xs, kw, train)
            xs, kw = as_arguments(y)
        return y, params

    takes = shared.takes if times == 1 else frozenset[str]()  # only the first call gets the inputs
    apply = Apply(run, lambda change: share(count, change("", shared)))
    return renamed(replace(shared, apply=apply, takes=takes), "share({})")


def _at_least_one(name: str, parts: Parts) -> Parts:
    if not parts:
        raise ValueError(f"{name} needs at least one part")
    return parts


def _layer_of_factory(
    factory: Callable[..., Any], index: int, args: tuple[object, ...], kwargs: dict[str, object]
) -> Layer:
    if args or kwargs or (isinstance(factory, type) and issubclass(factory, Module)):
        return lift(factory, *args, **kwargs)
    if isinstance(factory, (Layer, Module)) or not callable(factory):
        raise TypeError("stack takes a module class or a function that makes a layer; repeat takes a layer")
    make = with_context(factory, offers=("index",), what="stack factory")
    return as_layer(make(index, index=index), f"layer {index}")


def _checked_count(count: int) -> int:
    if not is_count(count):
        raise ValueError(f"a count of layers is an int, 0 or more; got {count!r}")
    return count
