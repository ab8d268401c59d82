"""The record that every model is: how to make its parameters, how to run it, and which of them train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ..compile import rng
from ..core._html import html_table
from ..core._mlx import mx
from ..core._pickling import Picklable
from ..core._types import Array, Params
from ..tree._paths import flat
from ..tree._select import Select, by_part, everything, nothing, under_prefix
from ._call import LayerCall, Result
from ._depth import refuse_too_deep
from ._tree_path import joined

__all__ = [
    "Apply",
    "Change",
    "Layer",
    "Rebuild",
    "Trainable",
    "init",
    "layer",
    "renamed",
    "require_layer",
    "seeded",
    "shapes",
]


@dataclass(frozen=True, slots=True)
class Trainable:
    """Which leaves train.

    `leaves(params)` chooses the leaves that may train, so no buffers. `rules` freeze and unfreeze leaves; the last rule
    that matches a leaf decides.
    """

    leaves: Callable[[Params], Select] = lambda params: everything
    rules: tuple[tuple[Select, bool], ...] = ()

    def __call__(self, params: Params) -> Select:
        """Return the Select of the leaves of `params` that train."""
        may_train = self.leaves(params)
        return Select(lambda path, leaf: self._trains(may_train, path, leaf), "trainable")

    def with_rule(self, chosen: Select, trains: bool) -> Trainable:
        """Add a rule that overrides all earlier rules."""
        return replace(self, rules=(*self.rules, (chosen, trains)))

    def inside(self, prefix: str) -> tuple[tuple[Select, bool], ...]:
        """Return the rules for a composition that holds the layer's parameters under `prefix`."""
        return tuple((under_prefix(prefix, chosen), trains) for chosen, trains in self.rules)

    def _trains(self, may_train: Select, path: str, leaf: object) -> bool:
        for chosen, trains in reversed(self.rules):
            if chosen(path, leaf):
                return trains and (may_train(path, leaf) or path in chosen.named)
        return may_train(path, leaf)


@dataclass(frozen=True, slots=True, repr=False)
class Layer(Picklable):
    """A model, or a part of one, as a value.

    - `init(key) -> params` makes parameters and buffers in one tree, under the paths of mlx.nn.
    - `apply(params, *xs, train=False, key=None, **kw) -> (y, params)` runs the layer. The returned parameters differ
      from the given ones in updated buffers only. `key` is the random stream of the call. A layer that draws random
      numbers with `train=True` and without a key raises ValueError.
    - `trainable(params) -> Select` chooses the leaves that train.
    - `name` is the name of the layer in messages and tables.
    - `parts` are the layers inside this layer, by path.
    - `wide` chooses the leaves that keep their dtype in a step with a narrower dtype, see `nn.wide`.
    - `label` is the text that `repr` prints: the name with the options that were given. Empty: the name.
    - `takes` are the names of the inputs beside the first that the layer takes by name, for example `mask`. A layer
      made by `nn.layer` takes those that its maker says.
    """

    init: Callable[..., Params]
    apply: Apply
    trainable: Trainable = field(default_factory=Trainable)
    name: str = "layer"
    parts: tuple[tuple[str, Layer], ...] = ()
    wide: Select = nothing
    label: str = ""
    takes: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return _drawn(self)

    def _repr_html_(self) -> str:
        """Return the parts and their numbers of parameters as HTML, for a notebook. Nothing is computed."""
        params, rows = shapes(self), [("layer", "parameters", "trainable")]
        trains, leaves = self.trainable(params), flat(params)
        for indent, text, place in _lines(self):
            inside = {path: leaf for path, leaf in leaves.items() if not place or f"{path}.".startswith(f"{place}.")}
            trained = sum(leaf.size for path, leaf in inside.items() if trains(path, leaf))
            rows.append((indent + text, f"{sum(leaf.size for leaf in inside.values()):,}", f"{trained:,}"))
        return html_table(rows)


Change: TypeAlias = Callable[[str, Layer], Layer]
"""`change(path, part) -> part`: the layer that takes the place of a part."""

Rebuild: TypeAlias = Callable[[Change], Layer]
"""`rebuild(change) -> layer`: the same layer of changed parts.

It calls `change(path, part)` for each part. A layer that wraps one other layer, such as `remat`, has the paths of the
wrapped layer; it calls `change("", wrapped)`.
"""


@dataclass(frozen=True, slots=True)
class Apply:
    """`Layer.apply`: the computation of the layer, with a key or with the random stream that a caller has installed.

    `rebuild` makes the layer again with changed parts. It belongs to the computation: a layer that gets another `Apply`
    loses it. None: no part can change.
    """

    run: LayerCall
    rebuild: Rebuild | None = None

    def __call__(
        self, params: Params, *xs: Any, train: bool = False, key: int | Array | None = None, **kw: Any
    ) -> Result:
        """Run the layer on `xs`."""

        def call() -> Result:
            return self.run(params, xs, kw, train)

        if key is not None:
            return rng.run(key, call)[0]
        return rng.undrawn(call) if train else call()


def layer(
    make: Callable[[], Params],
    run: LayerCall,
    *,
    trainable: Trainable | None = None,
    name: str = "layer",
    parts: tuple[tuple[str, Layer], ...] = (),
    rebuild: Rebuild | None = None,
    takes: Iterable[str] = (),
) -> Layer:
    """Make a Layer from a function that makes its parameters and a function that runs it.

    Both functions draw from the random stream that is installed during the call. For example, `mx.random.normal` in
    `make` follows the seed of `nn.init(seed)`.

    Args:
        make: `make() -> params`.
        run: `run(params, xs, kw, train) -> (y, params)`. `xs` is the tuple of positional arguments, `kw` the dict of
            keyword arguments.
        trainable: Which leaves train; by default all.
        name: The name in messages and tables.
        parts: The layers inside this layer, by path.
        rebuild: `rebuild(change) -> layer` makes this layer again, with `change(path, part)` in the place of each part.
            `nn.replaced` and other functions that change parts need it.
        takes: The names of the inputs beside the first that `run` takes by name, for example `("mask",)`.

    Returns:
        The Layer.

    Raises:
        RecursionError: The parts are nested deeper than Python's stack allows, about 100 deep at its default limit.

    >>> scale = layer(lambda: {"by": mx.array(2.0)}, lambda p, xs, kw, train: (xs[0] * p["by"], p), name="scale")
    >>> scale.apply(scale.init(0), mx.array(3.0))[0].item()
    6.0
    """
    refuse_too_deep(parts)
    wide = by_part({path: part.wide for path, part in parts})
    trains = trainable or Trainable()
    return Layer(seeded(make), Apply(run, rebuild), trains, name, parts, wide, takes=frozenset(takes))


def seeded(make: Callable[[], Params]) -> Callable[..., Params]:
    """Return `Layer.init` of a function that draws from the installed random stream."""

    def init(key: int | Array | None = None) -> Params:
        return make() if key is None else rng.run(key, make)[0]

    return init


def renamed(target: Layer, form: str) -> Layer:
    """Put the name and the label of a layer into a form.

    >>> renamed(layer(dict, lambda params, xs, kw, train: (xs[0], params), name="Net"), "remat({})").name
    'remat(Net)'
    """
    return replace(target, name=form.format(target.name), label=form.format(target.label) if target.label else "")


def init(key: int | Array) -> Callable[[Layer], Params]:
    """Make the parameters of a layer, evaluated, from a seed or a key.

    Args:
        key: An int, or a key of `mlx_fp.rng`. The numbers are those that mlx.nn draws after `mx.random.seed`, in the
            order of the parts.

    Returns:
        A function of a Layer that returns its parameters, a tree.

    >>> from mlx_fp import nn
    >>> nn.init(0)(nn.linear(3, 2))["weight"].shape
    (2, 3)
    """
    start = rng.key(key)

    def make_params(target: Layer) -> Params:
        params = require_layer(target, "init").init(start)
        mx.eval(params)
        return params

    return make_params


def require_layer(target: object, taker: str) -> Layer:
    """Return a Layer unchanged; raise TypeError with the remedy for any other value."""
    if isinstance(target, Layer):
        return target
    has_model = isinstance(getattr(target, "model", None), Layer)
    is_params = type(target) in (dict, list)
    hint = "its .model" if has_model else "the layer of these parameters" if is_params else "lift or split it"
    raise TypeError(f"{taker} takes a Layer; got {type(target).__name__}: {hint}")


def shapes(target: Layer) -> Params:
    """Return the parameters of a layer as lazy arrays: read their paths, shapes and dtypes, compute nothing.

    Args:
        target: The layer.

    Returns:
        The parameters, a tree of arrays that are not evaluated.

    >>> from mlx_fp import nn
    >>> nn.shapes(nn.linear(3, 2))["bias"].shape
    (2,)
    """
    return target.init(rng.key(0))


def _lines(target: Layer, key: str = "", place: str = "", indent: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the indentation, the text and the path of a layer and of its parts, in order."""
    yield indent, f"{key}: " * bool(key) + (target.label or target.name), place
    for path, part in target.parts:
        yield from _lines(part, path, joined(place, path), indent + "  ")


def _drawn(target: Layer) -> str:
    """Return the lines of a repr: a layer, and its parts below it, indented."""
    return "\n".join(f"{indent}{text}" for indent, text, _ in _lines(target))
