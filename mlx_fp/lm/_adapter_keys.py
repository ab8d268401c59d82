"""The places of adapters in a model, and the keys by which mlx-lm names these places.

mlx-lm puts an adapter on a module in two cases: the path of the module within one of the last `num_layers` blocks is
among the keys, or its path within the whole model is. See `linear_to_lora_layers` in
https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/tuner/utils.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ..core._mlx import mlx_nn
from ._mlx_lm import mlx_lm

__all__ = ["adapted_paths", "blocks_of", "default_keys", "keys_of"]


def blocks_of(module: mlx_nn.Module) -> list[str]:
    """Return the paths of the blocks of a model of mlx-lm, in order.

    Raises:
        TypeError: The module has no list of blocks, `layers`, so mlx-lm cannot put adapters on it.
    """
    blocks = getattr(module, "layers", None)
    paths = {id(part): path for path, part in module.named_modules()}
    if not isinstance(blocks, list) or not all(id(block) in paths for block in blocks):
        raise TypeError(f"adapters are saved for models of mlx-lm, which have blocks; {type(module).__name__} has none")
    return [paths[id(block)] for block in blocks]


def adapted_paths(names: Iterable[str], blocks: list[str], keys: Collection[str], num_layers: int) -> set[str]:
    """Return the paths of the modules on which mlx-lm puts adapters.

    Args:
        names: The paths of all modules of the model.
        blocks: The paths of the blocks.
        keys: Paths within a block, and paths within the model.
        num_layers: The number of blocks at the end that get adapters. 0 or less means all.

    >>> names = ["blocks.0.q", "blocks.0.v", "blocks.1.q", "blocks.1.v", "head"]
    >>> sorted(adapted_paths(names, ["blocks.0", "blocks.1"], {"q", "head"}, 1))
    ['blocks.1.q', 'head']
    """
    last = blocks[-max(num_layers, 0) :]
    inside = {f"{block}.{key}" for block in last for key in keys}
    return {name for name in names if name in keys or name in inside}


def keys_of(names: Collection[str], blocks: list[str], places: Collection[str]) -> tuple[list[str], int]:
    """Return `(keys, num_layers)` that name exactly these places.

    The keys are paths within a block where the same modules of the last blocks have adapters. Otherwise each key is the
    full path of a place.

    >>> names = ["blocks.0.q", "blocks.0.v", "blocks.1.q", "blocks.1.v", "head"]
    >>> keys_of(names, ["blocks.0", "blocks.1"], ["blocks.1.q", "blocks.1.v", "head"])
    (['head', 'q', 'v'], 1)
    >>> keys_of(names, ["blocks.0", "blocks.1"], ["blocks.0.q", "blocks.1.v"])
    (['blocks.0.q', 'blocks.1.v'], 2)
    """
    homes = {place: _block_of(place, blocks) for place in places}
    first = min((blocks.index(home) for home in homes.values() if home), default=len(blocks))
    keys = {place.removeprefix(f"{home}.") if home else place for place, home in homes.items()}
    num_layers = len(blocks) - first
    if adapted_paths(names, blocks, keys, num_layers) != set(places):
        keys, num_layers = set(places), len(blocks)
    return sorted(keys), num_layers


def default_keys(module: mlx_nn.Module, blocks: list[str]) -> set[str]:
    """Return the keys that mlx-lm uses if a config has none: each dense layer, embedding and expert of any block."""
    switch = mlx_lm("mlx_lm.models.switch_layers")
    kinds: tuple[Any, ...] = (
        *(mlx_nn.Linear, mlx_nn.QuantizedLinear, mlx_nn.Embedding, mlx_nn.QuantizedEmbedding),
        *(switch.SwitchLinear, switch.QuantizedSwitchLinear),
    )
    paths = [path for path, part in module.named_modules() if isinstance(part, kinds) or hasattr(part, "to_lora")]
    return {path.removeprefix(f"{home}.") for path in paths if (home := _block_of(path, blocks))}


def _block_of(path: str, blocks: Iterable[str]) -> str:
    """Return the block that contains a path, or an empty text."""
    return next((block for block in blocks if path.startswith(f"{block}.")), "")
