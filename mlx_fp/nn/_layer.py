"""The one record that every model is: how to make its parameters, how to run it, which of them train."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..compile import rng
from ..compile._compiled import compiled
from ..core._mlx import mx
from ..core._pickling import Picklable
from ..core._types import Array, Params
from ..tree._paths import flat, same_structure
from ..tree._select import Select, by_part, everything, nothing, under_prefix

__all__ = [
    "Layer",
    "Run",
    "Trainable",
    "check_given",
    "check_tree",
    "checked",
    "init",
    "layer",
    "predictor",
    "shapes",
]

Run = Callable[[Params, tuple[Any, ...], dict[str, Any], bool], tuple[Any, Params]]
"""`run(params, xs, kw, train) -> (y, params)`: a layer's own computation, on the random stream of the moment."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """Which leaves train: those that may (`leaves`, so no buffers), under rules of which the last match wins."""

    leaves: Callable[[Params], Select] = lambda params: everything
    rules: tuple[tuple[Select, bool], ...] = ()

    def __call__(self, params: Params) -> Select:
        """Return the Select of the leaves of `params` that train."""
        may = self.leaves(params)
        return Select(lambda path, leaf: self._trains(may, path, leaf), "trainable")

    def with_rule(self, chosen: Select, trains: bool) -> Trainable:
        """Add a rule that goes before all others."""
        return replace(self, rules=(*self.rules, (chosen, trains)))

    def inside(self, prefix: str) -> tuple[tuple[Select, bool], ...]:
        """Return the rules as they read from outside, where the layer's parameters are under `prefix`."""
        return tuple((under_prefix(prefix, chosen), trains) for chosen, trains in self.rules)

    def _trains(self, may: Select, path: str, leaf: Any) -> bool:
        for chosen, trains in reversed(self.rules):
            if chosen(path, leaf):
                return trains and (may(path, leaf) or path in chosen.named)
        return may(path, leaf)


@dataclass(frozen=True, slots=True, repr=False)
class Layer(Picklable):
    """A model, or a part of one, as a value.

    - `init(key) -> params` makes parameters and buffers, one tree, under mlx.nn's own paths.
    - `apply(params, *xs, train=False, key=None, **kw) -> (y, params)` runs it; the returned parameters differ in
      updated buffers only. `key` is the call's random stream; drawing with `train=True` and no key is a ValueError.
    - `trainable(params) -> Select` says which leaves train.
    - `parts` are the layers that it is made of, by path.
    - `wide` chooses the leaves that a step in a narrower type leaves as they are, see `nn.wide`.
    """

    init: Callable[..., Params]
    apply: Apply
    trainable: Trainable = field(default_factory=Trainable)
    name: str = "layer"
    parts: tuple[tuple[str, Layer], ...] = ()
    wide: Select = nothing

    def __repr__(self) -> str:
        return _drawn(self)


@dataclass(frozen=True, slots=True)
class Apply:
    """`Layer.apply`: the layer's own computation under a key, or under the stream that a caller has installed."""

    run: Run

    def __call__(
        self, params: Params, *xs: Any, train: bool = False, key: int | Array | None = None, **kw: Any
    ) -> tuple[Any, Params]:
        """Run the layer on `xs`."""

        def run() -> tuple[Any, Params]:
            return self.run(params, xs, kw, train)

        if key is not None:
            return rng.run(key, run)[0]
        return rng.undrawn(run) if train else run()


def layer(
    make: Callable[[], Params],
    run: Run,
    *,
    trainable: Trainable | None = None,
    name: str = "layer",
    parts: tuple[tuple[str, Layer], ...] = (),
) -> Layer:
    """Make a Layer of two functions that draw from the random stream of the moment.

    `make() -> params`; `run(params, xs, kw, train) -> (y, params)`. RecursionError, with the remedy, for parts that
    are nested deeper than Python's stack bears, about 100 deep at its usual limit.

    >>> scale = layer(lambda: {"by": mx.array(2.0)}, lambda p, xs, kw, train: (xs[0] * p["by"], p), name="scale")
    >>> scale.apply(scale.init(0), mx.array(3.0))[0].item()
    6.0
    """

    def made(key: int | Array | None = None) -> Params:
        return make() if key is None else rng.run(key, make)[0]

    _refuse_too_deep(parts)
    wide = by_part({path: part.wide for path, part in parts})
    return Layer(made, Apply(run), trainable or Trainable(), name, parts, wide)


def init(key: int | Array) -> Callable[[Layer], Params]:
    """Make the parameters of a layer, evaluated, from a seed or a key.

    The draws are those of mlx.nn after `mx.random.seed`, in the order of the parts.

    >>> from mlx_fp import nn
    >>> nn.init(0)(nn.linear(3, 2))["weight"].shape
    (2, 3)
    """

    start = rng.key(key)

    def made(target: Layer) -> Params:
        params = checked(target, "init").init(start)
        mx.eval(params)
        return params

    return made


def checked(target: Any, taker: str) -> Layer:
    """Return a Layer as it is; TypeError with the remedy for anything else."""
    if isinstance(target, Layer):
        return target
    holds = isinstance(getattr(target, "model", None), Layer)
    of_params = type(target) in (dict, list)
    hint = "its .model" if holds else "the layer of these parameters" if of_params else "lift or split it"
    raise TypeError(f"{taker} takes a Layer; got {type(target).__name__}: {hint}")


def shapes(target: Layer) -> Params:
    """Return the parameters of a layer without computing them, for their paths, shapes and dtypes alone."""
    return target.init(rng.key(0))


def check_tree(params: Any) -> None:
    """Raise TypeError unless parameters are a tree.

    >>> check_tree(0)
    Traceback (most recent call last):
    TypeError: parameters are a tree of arrays, as nn.init(seed)(model) makes it; got int
    """
    if not isinstance(params, (dict, list, tuple)):
        hint = ": give its .params" if hasattr(params, "params") else ""
        kind = type(params).__name__
        raise TypeError(f"parameters are a tree of arrays, as nn.init(seed)(model) makes it; got {kind}{hint}")


def check_given(target: Layer, params: Params) -> None:
    """Raise ValueError unless given parameters are the layer's own: paths, shapes and containers."""
    check_tree(params)
    tree = shapes(target)
    own, came = ({path: _shape(leaf) for path, leaf in flat(one).items()} for one in (tree, params))
    odd = [path for path in own | came if own.get(path, ...) != came.get(path, ...)]
    if odd:
        each = [f"{path} is {own.get(path, 'not there')}, given {came.get(path, 'nothing')}" for path in odd]
        raise ValueError(f"the parameters are not those of {target.name}: {'; '.join(each[:5])}")
    if not same_structure(tree, params):
        raise ValueError(
            f"the parameters have the paths of {target.name} but not its containers, as a file of weights has: "
            "restore_like(nn.shapes(model), params) puts them in place"
        )


def predictor(params: Params, *, compile: bool = False) -> Callable[[Layer], Callable[..., Any]]:
    """Turn a layer into a plain function of arrays, in evaluation mode, to embed anywhere.

    Numpy arrays are taken as well. With `compile=True` it is traced once per shape. ValueError for parameters that are
    not the layer's.

    >>> from mlx_fp import nn
    >>> model = nn.linear(3, 2)
    >>> predict = nn.predictor(nn.init(0)(model))(model)
    >>> predict(mx.ones((5, 3))).shape
    (5, 2)
    """

    def bound(target: Layer) -> Callable[..., Any]:
        check_given(checked(target, "predictor"), params)

        def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
            return target.apply.run(params, xs, kw, False)[0]

        step = compiled(run, "params", "xs", "kw", compile=compile, title="predictor", numpy=("xs", "kw"))
        return lambda *xs, **kw: step(params, xs, kw)

    return bound


_FRAMES, _BASE = 7, 200
"""Python's frames that a layer within a layer takes at most, measured, and those of a program around them."""


def _refuse_too_deep(parts: tuple[tuple[str, Layer], ...]) -> None:
    """Raise RecursionError, with the remedy, for layers that are nested deeper than Python's stack bears."""
    depth, level = 1, {id(part): part for _, part in parts}
    while level:
        depth, level = depth + 1, {id(part): part for one in level.values() for _, part in one.parts}
    frames = _BASE + _FRAMES * depth
    if frames > sys.getrecursionlimit():
        raise RecursionError(
            f"layers are nested {depth} deep, which takes {frames} frames of Python's stack, and its limit is "
            f"{sys.getrecursionlimit()}: call sys.setrecursionlimit({frames}) first"
        )


def _shape(leaf: Any) -> Any:
    return getattr(leaf, "shape", type(leaf).__name__)


def _drawn(target: Layer, label: str = "", indent: str = "") -> str:
    head = f"{indent}{label}{target.name}"
    return "\n".join([head, *(_drawn(part, f"{path}: ", indent + "  ") for path, part in target.parts)])
