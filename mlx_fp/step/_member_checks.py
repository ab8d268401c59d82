"""The models that MLX cannot train as members of one step: they are refused, and the message names the layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..core._mlx import mlx_nn
from ..nn._layer import Layer, shapes
from ..nn._surgery import Place, places_of
from ..tree._paths import flat
from ..tree._select import Select
from ._computation import Computation

__all__ = ["check_computation", "named_failure"]

T = TypeVar("T")

_CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d")
_POOLS = tuple(f"{kind}Pool{n}d" for kind in ("Max", "Avg") for n in (1, 2, 3))

_ALONE = "train it in runs of its own"

_EVALUATED = "Attempting to eval an array"
"""The words of MLX for a program that reads an array without a value."""

_FAILURE = re.compile(r"Not implemented for (\w+)")
"""The words of MLX for an operation that `mx.vmap` cannot compute."""


def check_computation(computation: Computation) -> None:
    """Raise ValueError for a step that cannot be one of several members.

    Raises:
        ValueError: The message names the option, or the layers by path.
    """
    if computation.exchange.world.size > 1:
        raise ValueError("members train in one process, and the step has across=…: leave it out")
    if computation.in_backward:
        raise ValueError('members take a step with update="at_end"; the step has update="in_backward"')
    model, places = computation.model, places_of(computation.model)
    grouped = [place.path for place in _of(places, _CONVOLUTIONS) if getattr(place.module, "groups", 1) > 1]
    if grouped:
        raise ValueError(
            f"{_listed(grouped)}: MLX computes convolutions with groups wrongly under mx.vmap, so {model.name} cannot "
            f"be a member: {_ALONE}"
        )
    if recomputed := [place.path for place in places if _is_recomputed(place)]:
        raise ValueError(
            f"{_listed(recomputed)}: mx.vmap has no rule for the order in which nn.remat computes; leave nn.remat out"
        )
    convolutions = [place.path for place in _of(places, _CONVOLUTIONS) if _trains(computation, place.path)]
    if len(convolutions) > 1:
        raise ValueError(
            f"{_listed(convolutions)}: mx.vmap has no rule for the gradient of a convolution whose input differs "
            f"between members, so a model with two convolutions that train cannot be a member: {_ALONE}"
        )


def named_failure(model: Layer, settings: Iterable[str], compute: Callable[[], T]) -> T:
    """Call a function that traces members. Where MLX has no rule for an operation, name the layers that may use it.

    Raises:
        ValueError: MLX cannot compute the members; the message has the operation and the layers, or the settings.
    """
    names = ", ".join(settings)
    try:
        return compute()
    except (ValueError, RuntimeError) as error:
        if names and _EVALUATED in str(error):
            raise ValueError(
                f"the step reads the value of an array while members are traced. The settings {names} are arrays, so a "
                "number that decides a branch, such as the momentum of sgd, cannot be one of them"
            ) from error
        found = _FAILURE.search(str(error))
        if found is None or "vmap" not in str(error):
            raise
        raise ValueError(_failure(model, found[1])) from error


def _failure(model: Layer, operation: str) -> str:
    places = places_of(model)
    if operation == "Depends":
        return (
            f"mx.vmap has no rule for {operation}, which orders computations: leave parts=…, optim.stochastic_rounding "
            f"and nn.remat out of the step of members"
        )
    suspects = [place.path for place in _of(places, _CONVOLUTIONS)]
    suspects += [place.path for place in _of(places, _POOLS) if _overlaps(place.module)]
    where = f" in {_listed(suspects)}" if suspects else ""
    return (
        f"mx.vmap has no rule for {operation}{where}, so {model.name} cannot be a member. Convolutions whose input "
        f"differs between members, and pooling with overlapping windows after a part that trains, need it: {_ALONE}"
    )


def _of(places: list[Place], kinds: tuple[str, ...]) -> list[Place]:
    classes = tuple(getattr(mlx_nn, kind) for kind in kinds)
    return [place for place in places if isinstance(place.module, classes)]


def _is_recomputed(place: Place) -> bool:
    if place.module is None:
        return place.layer().name.startswith("remat(")
    return "_is_recomputed" in vars(place.module) or place.layer().name.startswith("remat(")


def _trains(computation: Computation, path: str) -> bool:
    """Tell whether an array of the part at a path trains."""
    params = shapes(computation.model)
    chosen = computation.model.trainable(params)
    trained: Select = chosen if computation.chosen is None else chosen & computation.chosen
    return any(
        trained(name, leaf) for name, leaf in flat(params).items() if f"{name}.".startswith(f"{path}." * bool(path))
    )


def _overlaps(pool: Any) -> bool:
    return any(stride < size for stride, size in zip(pool._stride, pool._kernel_size, strict=True))


def _listed(paths: list[str]) -> str:
    return ", ".join(path or "the model" for path in paths)
