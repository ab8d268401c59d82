"""Which parameters of a layer train: rules that freeze and unfreeze them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ..core._types import Params
from ..tree._paths import flat
from ..tree._select import Select, everything, select
from ..tree._strict import must_match
from ._call import Inputs, Keywords, Result
from ._layer import Apply, Layer, renamed, require_layer, shapes

__all__ = ["check_spec", "freeze", "frozen", "unfreeze"]

R = TypeVar("R")


def freeze(spec: object = None, *, strict: bool = True) -> Callable[[R], R]:
    """Exclude the leaves that `spec` chooses from training: no gradient, no optimiser memory, no update.

    A step that is already built does not change; build another step.

    Args:
        spec: A path, an `re.Pattern`, a list of specs, a function of `(path)` or `(path, leaf)`, or a Select; None, the
            default, is every leaf. For example, `freeze("encoder")` freezes all parameters below `encoder`.
        strict: Whether a spec that chooses no leaf is an error.

    Returns:
        A function of a Layer, or of a record with a `model`, such as a trainer. It returns a changed copy.

    Raises:
        KeyError: The spec, or a part of it, chooses nothing; the message has the nearest paths.

    >>> from toolz import pipe
    >>> from mlx_fp import nn, paths
    >>> model = pipe(nn.sequential(encoder=nn.linear(3, 3), head=nn.linear(3, 2)), freeze("encoder"))
    >>> paths(model.trainable(nn.shapes(model)))(nn.shapes(model))
    ('head.weight', 'head.bias')
    """
    return _with_rule(select(spec, strict=strict), False)


def unfreeze(spec: object = None, *, strict: bool = True) -> Callable[[R], R]:
    """Let the leaves that `spec` chooses train again; a buffer trains only if the spec names its full path.

    Args:
        spec: The leaves, as in `freeze`.
        strict: Whether a spec that chooses no leaf is an error.

    Returns:
        A function of a Layer, or of a record with a `model`. It returns a changed copy.

    Raises:
        KeyError: The spec, or a part of it, chooses nothing.

    >>> from mlx_fp import nn, paths
    >>> model = unfreeze("bias")(freeze()(nn.linear(3, 2)))
    >>> paths(model.trainable(nn.shapes(model)))(nn.shapes(model))
    ('bias',)
    """
    return _with_rule(select(spec, strict=strict), True)


def frozen(target: Layer) -> Layer:
    """Freeze a whole layer and always run it in evaluation mode: no dropout, no update of running statistics.

    Args:
        target: The layer.

    Returns:
        A Layer with the same parameters.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> frozen(nn.dropout(0.5)).apply({}, mx.ones((2,)), train=True)[0].tolist()
    [1.0, 1.0]
    """

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        return target.apply.run(params, xs, kw, False)

    apply = Apply(run, lambda change: frozen(change("", target)))
    evaluating = replace(require_layer(target, "frozen"), apply=apply)
    return renamed(freeze()(evaluating), "frozen({})")


def _with_rule(chosen: Select, trains: bool) -> Callable[[R], R]:
    def add_rule(target: R) -> R:
        if isinstance(target, Layer):
            check_spec(chosen, target)
            return replace(target, trainable=target.trainable.with_rule(chosen, trains))
        model = getattr(target, "model", None)
        if not isinstance(model, Layer):
            raise TypeError(f"freeze and unfreeze take a Layer or a record with one; got {type(target).__name__}")
        return replace(target, model=_with_rule(chosen, trains)(model))  # type: ignore[type-var]  # it has a field

    return add_rule


def check_spec(chosen: Select, target: Layer) -> None:
    """Raise KeyError, with the nearest paths, for a spec that chooses no parameter of a layer."""
    if chosen is not everything:
        must_match(chosen, flat(shapes(target)).items(), f"parameter of {target.name}")
