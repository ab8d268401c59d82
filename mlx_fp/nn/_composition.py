"""The parts of a composition: their names, their parameters, and one call of all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from functools import partial
from typing import TypeAlias

from ..core._types import Params
from ..tree._select import Select, by_part
from ._call import Inputs, Keywords, Output, Result
from ._head_tap import within_part
from ._layer import Change, Layer, Trainable, layer
from ._lift import as_layer
from ._observing import run_observed
from ._tree_path import at_path

__all__ = [
    "Flow",
    "Parts",
    "PartsCall",
    "as_arguments",
    "as_value",
    "check_part_name",
    "composed",
    "parts_of",
    "run_each",
    "run_in_sequence",
    "run_part",
    "taken_by_each",
    "taken_by_first",
    "trainable_of_parts",
]

Key: TypeAlias = tuple[str] | tuple[str, int]

Parts: TypeAlias = dict[Key, Layer]
"""Layers by `("name",)` or `("layers", index)`, in the order in which they run."""

Flow: TypeAlias = Callable[["PartsCall", Inputs, Keywords], Output]
"""`flow(parts_call, xs, kw) -> y`: how a composition runs its parts."""


class PartsCall:
    """One call of a composition. It runs the parts and gathers the parameters that they return."""

    __slots__ = ("params", "parts", "train")

    def __init__(self, parts: Parts, params: Params, train: bool) -> None:
        missing = sorted({key[0] for key in parts} - set(params))
        if missing:
            raise KeyError(f"the parameters lack {', '.join(missing)}; they have {', '.join(map(str, params))}")
        self.parts, self.train = parts, train
        self.params = {name: list(value) if isinstance(value, list) else value for name, value in params.items()}

    def __call__(self, key: Key, xs: Inputs, kw: Keywords) -> Output:
        """Run one part."""
        holder: Params = self.params if len(key) == 1 else self.params[key[0]]
        y, holder[key[-1]] = run_part(self.parts[key], _path(key), holder[key[-1]], xs, kw, self.train)
        return y


def composed(name: str, parts: Parts, flow: Flow, takes: Callable[[Parts], frozenset[str]]) -> Layer:
    """Make a Layer of parts that run as `flow` says. `takes(parts)` are the names of its inputs beside the first."""

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        parts_call = PartsCall(parts, params, train)
        return flow(parts_call, xs, kw), parts_call.params

    def rebuild(change: Change) -> Layer:
        return composed(name, {key: change(_path(key), part) for key, part in parts.items()}, flow, takes)

    by_path = tuple((_path(key), part) for key, part in parts.items())
    trainable = trainable_of_parts(by_path)
    names = takes(parts)
    return layer(
        lambda: _make_params(parts), run, trainable=trainable, name=name, parts=by_path, rebuild=rebuild, takes=names
    )


def trainable_of_parts(parts: tuple[tuple[str, Layer], ...], own: Collection[str] = ()) -> Trainable:
    """Return the Trainable of a composition: the leaves that train in its parts, and its own arrays named in `own`."""

    def leaves(params: Params) -> Select:
        return by_part({path: part.trainable.leaves(at_path(params, path)) for path, part in parts}, own)

    return Trainable(leaves, tuple(rule for path, part in parts for rule in part.trainable.inside(path)))


def run_part(part: Layer, path: str, params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
    """Run a part of a layer; an exception gets a note with the path of the part."""
    try:
        return within_part(path, partial(run_observed, part, path))(params, xs, kw, train)
    except Exception as error:
        error.add_note(f"in {path} ({part.name})")
        raise


def _make_params(parts: Parts) -> Params:
    params: Params = {}
    for key, part in parts.items():
        if len(key) == 1:
            params[key[0]] = part.init()
        else:
            params.setdefault(key[0], []).append(part.init())
    return params


def parts_of(entries: tuple[object, ...], named: dict[str, object]) -> Parts:
    """Return the layers of entries and of named entries."""
    parts: Parts = {("layers", i): as_layer(entry, f"entry {i}") for i, entry in enumerate(entries)}
    for name, entry in named.items():
        check_part_name(name, ("layers",) if entries else ())
        parts[name,] = as_layer(entry, f"entry {name!r}")
    return parts


def check_part_name(name: str, taken: Container[str]) -> None:
    """Raise ValueError for a name that a part cannot have."""
    if not name or "." in name or name.startswith("_") or name in taken:
        raise ValueError(
            f"a part cannot be called {name!r}: that name is taken, or it is empty, or it has a dot, which separates "
            "the names of a path, or it starts with _, and mlx.nn skips such attributes"
        )


def run_in_sequence(parts_call: PartsCall, xs: Inputs, kw: Keywords) -> Output:
    """Pass the output of each part to the next part."""
    y = as_value(xs, kw)
    for key in parts_call.parts:
        y = parts_call(key, xs, kw)
        xs, kw = as_arguments(y)
    return y


def taken_by_first(parts: Parts) -> frozenset[str]:
    """Return the names of the inputs of parts that run in sequence: the first takes them, and no other part would."""
    first, *others = [part.takes for part in parts.values()] or [frozenset[str]()]
    return first.difference(*others)


def taken_by_each(parts: Parts) -> frozenset[str]:
    """Return the names of the inputs that all parts take."""
    return frozenset.intersection(*[part.takes for part in parts.values()])


def run_each(parts_call: PartsCall, xs: Inputs, kw: Keywords) -> tuple[Output, ...]:
    """Pass the same arguments to each part."""
    return tuple(parts_call(key, xs, kw) for key in parts_call.parts)


def as_arguments(y: Output) -> tuple[Inputs, Keywords]:
    """Return an output as arguments of the next part: a tuple or list by position, a dict by name."""
    if isinstance(y, dict):
        return (), y
    return (tuple(y), {}) if isinstance(y, (tuple, list)) else ((y,), {})


def as_value(xs: Inputs, kw: Keywords) -> Output:
    """Return arguments as one value, the output of a composition without parts."""
    if kw:
        return kw
    return xs[0] if len(xs) == 1 else xs


def _path(key: Key) -> str:
    return ".".join(map(str, key))
