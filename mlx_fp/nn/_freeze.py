"""Which parameters of a layer train: rules that freeze and unfreeze them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ..tree._paths import flat
from ..tree._select import Select, everything, select
from ..tree._strict import must_match
from ._layer import Apply, Layer, checked, shapes

__all__ = ["check_spec", "freeze", "frozen", "unfreeze"]

R = TypeVar("R")


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
    still = replace(
        checked(target, "frozen"), apply=Apply(lambda params, xs, kw, train: target.apply.run(params, xs, kw, False))
    )
    return replace(freeze()(still), name=f"frozen({target.name})")


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
