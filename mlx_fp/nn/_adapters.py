"""Adapters of low rank on chosen layers: LoRA, DoRA, and layers with the adapters in their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._options import check_options, count, number
from ..core._types import Params
from ..tree._paths import flat
from ..tree._select import select
from ._adapter_modules import DoRAEmbedding, DoRALinear, LoRAEmbedding, LoRALinear, LoRASwitchLinear
from ._dense import is_adapter
from ._given import pretrained
from ._layer import Layer, require_layer, shapes
from ._replaced import chosen_by
from ._rewriting import rewriting
from ._surgery import Place, at_paths, edited, places_of

__all__ = ["dora", "lora", "merged"]

_LINEAR = (mlx_nn.Linear, mlx_nn.QuantizedLinear)
_TABLES = (mlx_nn.Embedding, mlx_nn.QuantizedEmbedding)


def lora(spec: object = None, *, rank: int = 8, scale: float = 20.0, dropout: float = 0.0) -> Callable[[Layer], Layer]:
    """Add LoRA adapters to linear layers, experts and tables; of all parameters, only those of adapters train.

    The layers may be quantised, in compositions or inside lifted modules. The paths, shapes and sums are those of
    mlx-lm: the layer at `PATH` is at `PATH.linear` (a table at `PATH.embedding`), beside `PATH.lora_a` and
    `PATH.lora_b`. A second call adds adapters, and does not freeze the first. See https://arxiv.org/abs/2106.09685.

    Args:
        spec: The paths of the layers, as in `nn.freeze`; None, the default, is every linear layer and every layer of
            experts, without tables.
        rank: The rank of the matrix that is added to the weight.
        scale: The factor of this matrix.
        dropout: The probability to drop an input of the adapter in training.

    Returns:
        A function of a Layer. It returns a changed copy.

    Raises:
        KeyError: The spec, or a part of it, chooses no layer that takes an adapter; the message has the nearest paths.
        ValueError: A chosen layer has an adapter already, or there is no layer for one, or an option is out of range.

    >>> from mlx_fp import nn, paths
    >>> model = lora("body", rank=2)(nn.sequential(body=nn.linear(4, 3), head=nn.linear(3, 2)))
    >>> paths(model.trainable(nn.shapes(model)))(nn.shapes(model))
    ('body.lora_a', 'body.lora_b')
    """
    return _adapted("lora", spec, rank, scale, dropout, _lora)


def dora(spec: object = None, *, rank: int = 8, scale: float = 20.0, dropout: float = 0.0) -> Callable[[Layer], Layer]:
    """Add DoRA adapters to linear layers and tables; of all parameters, only those of adapters train.

    The length of each row of the weight is a parameter of its own, `PATH.m`. All else is as in `nn.lora`. See
    https://arxiv.org/abs/2402.09353.

    Args:
        spec: The paths of the layers, as in `nn.lora`. Experts take no DoRA adapter.
        rank: The rank of the matrix that is added to the weight.
        scale: The factor of this matrix.
        dropout: The probability to drop an input of the adapter in training.

    Returns:
        A function of a Layer. It returns a changed copy.

    Raises:
        KeyError: The spec, or a part of it, chooses no layer that takes an adapter; the message has the nearest paths.
        ValueError: A chosen layer has an adapter already, or there is no layer for one, or an option is out of range.
        TypeError: A chosen layer is one of experts, or a linear layer with a forward pass of its own.

    >>> from mlx_fp import nn, paths
    >>> model = dora(rank=2)(nn.linear(4, 3))
    >>> paths(model.trainable(nn.shapes(model)))(nn.shapes(model))
    ('m', 'lora_a', 'lora_b')
    """
    return _adapted("dora", spec, rank, scale, dropout, _dora)


def merged(params: Params, *, dequantize: bool = False) -> Callable[[Layer], Layer]:
    """Put adapters into the weights: the layer without adapters that computes the same.

    A quantised weight is dequantised, gets the adapter, and is quantised again in its format, which rounds.

    Args:
        params: The parameters of the layer with adapters.
        dequantize: Whether such a weight stays dequantised.

    Returns:
        A function of a Layer with adapters of `nn.lora`, `nn.dora` or mlx-lm. It returns the layer with the paths that
        it had before them. Its `init` returns the merged parameters. They are frozen as before; `nn.unfreeze` lets them
        train.

    Raises:
        ValueError: The parameters are not those of the layer, or the layer has no adapter.

    >>> from mlx_fp import nn
    >>> model = nn.lora(rank=2)(nn.linear(4, 3))
    >>> plain = nn.merged(nn.init(0)(model))(model)
    >>> plain, sorted(nn.init(0)(plain))
    (Linear(input_dims=4, output_dims=3, bias=True), ['bias', 'weight'])
    """

    def fuse(module: Any) -> mlx_nn.Module:
        result: mlx_nn.Module = module.fuse(dequantize=dequantize)
        return result

    def merge_in(target: Layer) -> Layer:
        given = pretrained(params)(require_layer(target, "merged"))
        if not any(_is_adapter(place) for place in places_of(given)):
            raise ValueError(f"merged takes a layer with adapters; {target.name} has none")
        plain = edited(given, rewriting(_is_adapter, fuse))
        weights = plain.init()
        mx.eval(weights)
        return pretrained(weights)(plain)

    return merge_in


def _adapted(
    verb: str, spec: object, rank: int, scale: float, dropout: float, adapter: Callable[..., mlx_nn.Module]
) -> Callable[[Layer], Layer]:
    rules = {"rank": count(1), "scale": number(), "dropout": number(0, below=1)}
    check_options(verb, {"rank": rank, "scale": scale, "dropout": dropout}, rules)
    chosen = select(spec)

    def adapt(module: mlx_nn.Module) -> mlx_nn.Module:
        return adapter(module, rank, scale, dropout)

    def adapt_in(target: Layer) -> Layer:
        places = places_of(require_layer(target, verb))
        wanted = chosen_by(chosen, target, _takes_adapter if spec is not None else _is_linear, "layer for an adapter")
        paths = [place.path for place in places if wanted(place)]
        if not paths:
            raise ValueError(f"{verb} finds no linear layer in {target.name}; give a spec for tables")
        _refuse_adapted(verb, paths, tuple(place.path for place in places if _is_adapter(place)))
        return _only_adapters_train(target, edited(target, rewriting(wanted, adapt)))

    return adapt_in


def _refuse_adapted(verb: str, paths: list[str], adapted: tuple[str, ...]) -> None:
    """Raise ValueError for a chosen layer that is an adapter or lies inside one."""
    again = [outer for outer in adapted if any(p == outer or p.startswith(_prefix(outer)) for p in paths)]
    if again:
        raise ValueError(f"{', '.join(again[:3])}: there is an adapter already; give {verb} a spec without it")


def _only_adapters_train(before: Layer, after: Layer) -> Layer:
    """Freeze all but adapters, and let the new ones train."""
    old, new = _adapter_leaves(before), _adapter_leaves(after)
    adapters = at_paths(new, "adapters")
    trainable = after.trainable.with_rule(~adapters, False).with_rule(at_paths(new - old, "new adapters"), True)
    return replace(after, trainable=trainable)


def _adapter_leaves(target: Layer) -> set[str]:
    """List the paths of the parameters of adapters, without those of the adapted layers."""
    paths, found = flat(shapes(target)), set[str]()
    for place in filter(_is_adapter, places_of(target)):
        own = _prefix(place.path)
        bases = (f"{own}linear.", f"{own}embedding.")
        found |= {path for path in paths if path.startswith(own) and not path.startswith(bases)}
    return found


def _prefix(path: str) -> str:
    return f"{path}." if path else ""


def _is_adapter(place: Place) -> bool:
    return place.module is not None and is_adapter(place.module)


def _takes_adapter(place: Place) -> bool:
    return _is_linear(place) or isinstance(place.module, _TABLES)


def _is_linear(place: Place) -> bool:
    module = place.module
    return isinstance(module, _LINEAR) or (
        module is not None and (is_adapter(module) or _is_experts(module) or hasattr(module, "to_lora"))
    )


def _is_experts(module: mlx_nn.Module) -> bool:
    """Tell whether a module is a linear layer of experts, as mlx-lm's SwitchLinear."""
    sizes = ("num_experts", "input_dims", "output_dims")
    return "weight" in module and all(hasattr(type(module), name) or name in vars(module) for name in sizes)


def _lora(module: Any, rank: int, scale: float, dropout: float) -> mlx_nn.Module:
    if hasattr(module, "to_lora"):  # a module that knows its adapter, as some of mlx-lm
        adapter: mlx_nn.Module = module.to_lora(r=rank, scale=scale, dropout=dropout)
        return adapter
    if isinstance(module, _TABLES):
        return LoRAEmbedding(module, rank, scale, dropout)
    return (LoRALinear if isinstance(module, _LINEAR) else LoRASwitchLinear)(module, rank, scale, dropout)


def _dora(module: mlx_nn.Module, rank: int, scale: float, dropout: float) -> mlx_nn.Module:
    if isinstance(module, _TABLES):
        return DoRAEmbedding(module, rank, scale, dropout)
    if type(module).__call__ in [each.__call__ for each in _LINEAR]:
        return DoRALinear(module, rank, scale, dropout)
    raise TypeError(
        f"{type(module).__name__} takes no DoRA adapter, because it is no plain linear layer: give a spec without it, "
        "or use nn.lora"
    )
