"""Layers made of layers.

Entries are Layers, mlx.nn modules or their classes, or plain callables. Positional ones keep their parameters under
`layers.0`, `layers.1`, …, named ones under their name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import replace
from functools import reduce
from typing import Any

from ..core import _signature as call
from ..core._errors import is_count
from ..core._mlx import mx
from ..core._types import Params
from ..tree._select import Select, by_part
from ._layer import Apply, Layer, Trainable, layer
from ._lift import as_layer, lift
from ._module import Module

__all__ = ["add", "branch", "concat", "repeat", "residual", "sequential", "share", "stack"]

Key = tuple[str] | tuple[str, int]
Parts = dict[Key, Layer]
Flow = Callable[["Pass", tuple[Any, ...], dict[str, Any]], Any]


def sequential(*entries: Any, **named: Any) -> Layer:
    """Run entries one after the other.

    The first takes all arguments; a tuple or list goes on as positional arguments, a dict as keyword arguments.
    No entries: the identity.

    >>> from mlx_fp import nn
    >>> model = nn.sequential(nn.linear(4, 8), nn.relu, head=nn.linear(8, 2))
    >>> nn.init(0)(model)["head"]["weight"].shape
    (2, 8)
    """
    return _composed("sequential", _parts(entries, named), _chain)


def residual(*entries: Any, **named: Any) -> Layer:
    """Run entries as `sequential` does, and add the first positional input: `(…, d) -> (…, d)`.

    >>> residual(lambda x: 2 * x).apply({"layers": [{}]}, mx.array(3))[0].item()
    9
    """

    def flow(through: Pass, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        if not xs:
            raise TypeError("residual adds its first positional input, and was called with keyword arguments only")
        return xs[0] + _chain(through, xs, kw)

    return _composed("residual", _some("residual", _parts(entries, named)), flow)


def branch(*entries: Any, **named: Any) -> Layer:
    """Give every entry the same arguments and return a tuple of what they return."""
    return _composed("branch", _some("branch", _parts(entries, named)), _fan)


def concat(*entries: Any, axis: int = -1, **named: Any) -> Layer:
    """Give every entry the same arguments and concatenate what they return along `axis`."""

    def flow(through: Pass, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        return mx.concatenate(list(_fan(through, xs, kw)), axis=axis)

    return _composed("concat", _some("concat", _parts(entries, named)), flow)


def add(*entries: Any, **named: Any) -> Layer:
    """Give every entry the same arguments and add what they return."""

    def flow(through: Pass, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        return reduce(lambda total, y: total + y, _fan(through, xs, kw))

    return _composed("add", _some("add", _parts(entries, named)), flow)


def stack(count: int, factory: Any, *args: Any, **kwargs: Any) -> Layer:
    """Run `count` layers one after the other, each made anew, with parameters of its own under `layers.i`.

    `factory` is a module class or a function: called with the arguments, or, when there are none, with the index if
    it takes one. `stack(0, …)` is the identity.

    >>> from mlx_fp import nn
    >>> widths = nn.stack(2, lambda i: nn.linear(2 + i, 3 + i))
    >>> [p["weight"].shape for p in nn.init(0)(widths)["layers"]]
    [(3, 2), (4, 3)]
    """
    made = [_made(factory, i, args, kwargs) for i in range(_counted(count))]
    return replace(sequential(*made), name="stack")


def repeat(count: int, entry: Any) -> Layer:
    """Run `count` copies of one entry, each with parameters of its own under `layers.i`."""
    return replace(sequential(*[as_layer(entry, "repeat's entry")] * _counted(count)), name="repeat")


def share(count: int, entry: Any) -> Layer:
    """Run one entry `count` times over, with one set of parameters, under the entry's own paths.

    >>> share(3, lambda x: 2 * x).apply({}, mx.array(1))[0].item()
    8
    """
    once = as_layer(entry, "share's entry")
    times = _counted(count)

    def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool) -> tuple[Any, Params]:
        y = _as_value(xs, kw)
        for _ in range(times):
            y, params = once.apply.run(params, xs, kw, train)
            xs, kw = _as_arguments(y)
        return y, params

    return replace(once, apply=Apply(run), name=f"share({once.name})")


class Pass:
    """One call through the parts of a composition; gathers the parameters that the parts hand back."""

    __slots__ = ("params", "parts", "train")

    def __init__(self, parts: Parts, params: Params, train: bool) -> None:
        lacking = sorted({key[0] for key in parts} - set(params))
        if lacking:
            raise KeyError(f"the parameters lack {', '.join(lacking)}; they have {', '.join(map(str, params))}")
        self.parts, self.train = parts, train
        self.params = {name: list(value) if isinstance(value, list) else value for name, value in params.items()}

    def __call__(self, key: Key, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """Run one part."""
        home: Any = self.params if len(key) == 1 else self.params[key[0]]
        y, home[key[-1]] = run_part(self.parts[key], _path(key), home[key[-1]], xs, kw, self.train)
        return y


def _composed(name: str, parts: Parts, flow: Flow) -> Layer:
    def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool) -> tuple[Any, Params]:
        through = Pass(parts, params, train)
        return flow(through, xs, kw), through.params

    named = tuple((_path(key), part) for key, part in parts.items())
    return layer(lambda: _make(parts), run, trainable=joined(named), name=name, parts=named)


def joined(parts: tuple[tuple[str, Layer], ...], own: Collection[str] = ()) -> Trainable:
    """Say what trains in a composition: what trains in its parts, and the arrays of its own of these names."""

    def leaves(params: Params) -> Select:
        return by_part({path: part.trainable.leaves(at(params, path)) for path, part in parts}, own)

    return Trainable(leaves, tuple(rule for path, part in parts for rule in part.trainable.inside(path)))


def at(params: Params, path: str) -> Params:
    """Return the parameters of a part, which is at `name` or `layers.N`."""
    head, _, index = path.partition(".")
    return params[head][int(index)] if index else params[head]


def run_part(
    part: Layer, where: str, params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool
) -> tuple[Any, Params]:
    """Run a part of a layer; an exception gains a note that says which."""
    try:
        return part.apply.run(params, xs, kw, train)
    except Exception as error:
        error.add_note(f"in {where} ({part.name})")
        raise


def _make(parts: Parts) -> Params:
    params: dict[str, Any] = {}
    for key, part in parts.items():
        if len(key) == 1:
            params[key[0]] = part.init()
        else:
            params.setdefault(key[0], []).append(part.init())
    return params


def _parts(entries: tuple[Any, ...], named: dict[str, Any]) -> Parts:
    parts: Parts = {("layers", i): as_layer(entry, f"entry {i}") for i, entry in enumerate(entries)}
    for name, entry in named.items():
        part_name(name, ("layers",) if entries else ())
        parts[name,] = as_layer(entry, f"entry {name!r}")
    return parts


def part_name(name: str, taken: Container[str]) -> None:
    """Raise ValueError for a name that a part cannot have."""
    if not name or "." in name or name.startswith("_") or name in taken:
        raise ValueError(
            f"a part cannot be called {name!r}: that name is taken, or it is empty or has a dot, which paths are cut "
            "at, or starts with _, which mlx.nn passes over"
        )


def _some(name: str, parts: Parts) -> Parts:
    if not parts:
        raise ValueError(f"{name} needs at least one part")
    return parts


def _chain(through: Pass, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    y = _as_value(xs, kw)
    for key in through.parts:
        y = through(key, xs, kw)
        xs, kw = _as_arguments(y)
    return y


def _fan(through: Pass, xs: tuple[Any, ...], kw: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(through(key, xs, kw) for key in through.parts)


def _as_arguments(y: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(y, dict):
        return (), y
    return (tuple(y), {}) if isinstance(y, (tuple, list)) else ((y,), {})


def _as_value(xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    if kw:
        return kw
    return xs[0] if len(xs) == 1 else xs


def _made(factory: Any, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layer:
    if args or kwargs or (isinstance(factory, type) and issubclass(factory, Module)):
        return lift(factory, *args, **kwargs)
    if isinstance(factory, (Layer, Module)) or not callable(factory):
        raise TypeError("stack takes a module class or a function that makes a layer; repeat takes a layer")
    make = call.with_context(factory, offers=("index",), what="stack factory")
    return as_layer(make(index, index=index), f"layer {index}")


def _counted(count: int) -> int:
    if not is_count(count):
        raise ValueError(f"a count of layers is an int, 0 or more; got {count!r}")
    return count


def _path(key: Key) -> str:
    return ".".join(map(str, key))
