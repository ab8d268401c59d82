"""Other parts at chosen paths of a layer."""

from __future__ import annotations

from collections.abc import Callable

from ..tree._select import Select, select
from ..tree._strict import must_match
from ._layer import Layer, require_layer
from ._lift import as_layer
from ._surgery import Edit, Place, edited, places_of

__all__ = ["chosen_by", "replaced"]


def replaced(spec: object, make: Callable[[Layer], object]) -> Callable[[Layer], Layer]:
    """Put other layers in the place of parts.

    The parts are those of compositions and of wrappers such as `nn.remat`, and the modules inside lifted modules. Where
    a part and a part inside it are chosen, the outer part is replaced. All other parts keep their parameters, names and
    rules of freezing. No parameter that was frozen trains. The new part stands in each place of a shared module.

    Args:
        spec: The paths of the parts, as in `nn.freeze`. A function of `(path, part)` gets the module of a lifted part,
            and the Layer of any other part.
        make: `make(part)` returns the new part: a Layer, an mlx.nn module or its class, or a callable. `part` is a
            Layer, whose `init` returns the parameters that the layer has at this place. It is also called in each
            `init` of the result.

    Returns:
        A function of a Layer. It returns a changed copy.

    Raises:
        KeyError: The spec, or a part of it, chooses no part; the message has the nearest paths.
        TypeError: `make` is no function, or returns no layer, or the part is inside a layer that cannot be rebuilt.

    >>> from mlx_fp import nn
    >>> model = nn.sequential(body=nn.linear(3, 4), head=nn.linear(4, 2))
    >>> nn.replaced("head", lambda part: nn.residual(nn.linear(4, 4)))(model)
    sequential
      body: Linear(input_dims=3, output_dims=4)
      head: residual
        layers.0: Linear(input_dims=4, output_dims=4)
    """
    if not callable(make):
        raise TypeError(f"replaced takes a function that makes the new part; got {make!r}")
    chosen = select(spec)

    def made(part: Layer) -> Layer:
        return as_layer(make(part), "the new part")

    def replace_in(target: Layer) -> Layer:
        has_parts = any(place.path for place in places_of(require_layer(target, "replaced")))
        wanted = chosen_by(chosen, target, lambda place: bool(place.path) or not has_parts, "part")
        return edited(target, Edit(wanted, made, lambda part: made(part).init()))

    return replace_in


def chosen_by(
    chosen: Select, target: Layer, is_candidate: Callable[[Place], bool], kind: str
) -> Callable[[Place], bool]:
    """Return a test of a place; raise KeyError for a spec that chooses none of the candidates in a layer."""
    candidates = [(place.path, _leaf(place)) for place in places_of(target) if is_candidate(place)]
    must_match(chosen, candidates, f"{kind} of {target.name}")
    return lambda place: is_candidate(place) and chosen(place.path, _leaf(place))


def _leaf(place: Place) -> object:
    """Return the value that a spec gets beside the path."""
    return place.layer() if place.module is None else place.module
