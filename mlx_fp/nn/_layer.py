"""The one record that every model is: how to make its parameters, how to run it, which of them train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..compile import rng
from ..compile._compiled import compiled
from ..core._mlx import mx
from ..core._types import Array, Params
from ..tree._paths import alike, flat
from ..tree._select import Select, everything, nothing, parted, select, within
from ..tree._strict import must_match

__all__ = [
    "Layer",
    "Run",
    "Trainable",
    "check_given",
    "check_spec",
    "freeze",
    "frozen",
    "init",
    "layer",
    "predictor",
    "shapes",
    "unfreeze",
]

Run = Callable[[Params, tuple[Any, ...], dict[str, Any], bool], tuple[Any, Params]]
"""`run(params, xs, kw, train) -> (y, params)`: a layer's own computation, on the random stream of the moment."""

R = TypeVar("R")


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
        return tuple((within(prefix, chosen), trains) for chosen, trains in self.rules)

    def _trains(self, may: Select, path: str, leaf: Any) -> bool:
        for chosen, trains in reversed(self.rules):
            if chosen(path, leaf):
                return trains and (may(path, leaf) or path in chosen.named)
        return may(path, leaf)


@dataclass(frozen=True, slots=True, repr=False)
class Layer:
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

    `make() -> params`; `run(params, xs, kw, train) -> (y, params)`.

    >>> scale = layer(lambda: {"by": mx.array(2.0)}, lambda p, xs, kw, train: (xs[0] * p["by"], p), name="scale")
    >>> scale.apply(scale.init(0), mx.array(3.0))[0].item()
    6.0
    """

    def made(key: int | Array | None = None) -> Params:
        return make() if key is None else rng.run(key, make)[0]

    wide = parted({path: part.wide for path, part in parts})
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
        if not isinstance(target, Layer):
            raise TypeError(f"init takes a Layer; got {type(target).__name__}: lift or split it")
        params = target.init(start)
        mx.eval(params)
        return params

    return made


def shapes(target: Layer) -> Params:
    """Return the parameters of a layer without computing them, for their paths, shapes and dtypes alone."""
    return target.init(rng.key(0))


def check_given(target: Layer, params: Params) -> None:
    """Raise ValueError unless given parameters are the layer's own: paths, shapes and containers."""
    tree = shapes(target)
    own, came = ({path: _shape(leaf) for path, leaf in flat(one).items()} for one in (tree, params))
    odd = [path for path in own | came if own.get(path, ...) != came.get(path, ...)]
    if odd:
        each = [f"{path} is {own.get(path, 'not there')}, given {came.get(path, 'nothing')}" for path in odd]
        raise ValueError(f"the parameters are not those of {target.name}: {'; '.join(each[:5])}")
    if not alike(tree, params):
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
        check_given(target, params)

        def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any]) -> Any:
            return target.apply.run(params, xs, kw, False)[0]

        step = compiled(run, "params", "xs", "kw", compile=compile, title="predictor", numpy=("xs", "kw"))
        return lambda *xs, **kw: step(params, xs, kw)

    return bound


def freeze(spec: Any = None, *, strict: bool = True) -> Callable[[R], R]:
    """Keep the leaves that `spec` chooses from training: no gradient, no optimiser memory, no update.

    Takes a Layer, or a record with a `model`, a trainer say. A KeyError names the nearest paths where the spec, or a
    part of it, chooses nothing; `strict=False` allows it. A step already built is not changed: build another.

    >>> from toolz import pipe
    >>> from mlx_fp import nn, paths
    >>> model = pipe(nn.sequential(encoder=nn.linear(3, 3), head=nn.linear(3, 2)), freeze("encoder"))
    >>> paths(model.trainable(nn.shapes(model)))(nn.shapes(model))
    ('head.weight', 'head.bias')
    """
    return _ruled(select(spec, strict=strict), False)


def unfreeze(spec: Any = None, *, strict: bool = True) -> Callable[[R], R]:
    """Let the leaves that `spec` chooses train again; buffers only when the spec names their very path.

    Options as in `freeze`.
    """
    return _ruled(select(spec, strict=strict), True)


def frozen(target: Layer) -> Layer:
    """Freeze all of a layer and run it in evaluation mode always: no dropout, statistics left alone.

    >>> from mlx_fp import nn
    >>> frozen(nn.dropout(0.5)).apply({}, mx.ones((2,)), train=True)[0].tolist()
    [1.0, 1.0]
    """
    still = replace(target, apply=Apply(lambda params, xs, kw, train: target.apply.run(params, xs, kw, False)))
    return replace(freeze()(still), name=f"frozen({target.name})")


def _shape(leaf: Any) -> Any:
    return getattr(leaf, "shape", type(leaf).__name__)


def _ruled(chosen: Select, trains: bool) -> Callable[[R], R]:
    def ruled(target: Any) -> Any:
        if not isinstance(target, Layer):
            if not isinstance(getattr(target, "model", None), Layer):
                raise TypeError(f"freeze and unfreeze take a Layer or a record with one; got {type(target).__name__}")
            return replace(target, model=ruled(target.model))
        check_spec(chosen, target)
        return replace(target, trainable=target.trainable.with_rule(chosen, trains))

    return ruled


def check_spec(chosen: Select, target: Layer) -> None:
    """Raise KeyError, with the nearest paths, for a spec that chooses no parameter of a layer."""
    if chosen is not everything:
        must_match(chosen, flat(shapes(target)).items(), f"parameter of {target.name}")


def _drawn(target: Layer, label: str = "", indent: str = "") -> str:
    head = f"{indent}{label}{target.name}"
    return "\n".join([head, *(_drawn(part, f"{path}: ", indent + "  ") for path, part in target.parts)])
