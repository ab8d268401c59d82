"""Write the weights of a model as mlx-lm does: files below a size, and an index of their tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core._container import write_container
from ..core._tensors import as_tensor
from ..core._types import Array

__all__ = ["shards", "write_weights"]


def write_weights(folder: Path, weights: Mapping[str, Array], shard_bytes: int, total_parameters: int) -> None:
    """Write weights into a folder: one file, or several files below a size, and `model.safetensors.index.json`.

    The bytes of a shard go from the memory of the arrays to the file, without a copy. Arrays that are not evaluated are
    evaluated shard by shard.

    Args:
        folder: The folder.
        weights: The arrays by name.
        shard_bytes: The largest number of bytes of a file. A larger array is in a file of its own.
        total_parameters: The number of parameters for the index; a quantised weight counts as its elements.
    """
    parts = list(shards(weights, shard_bytes))
    weight_map: dict[str, str] = {}
    for i, names in enumerate(parts, 1):
        file = f"model-{i:05d}-of-{len(parts):05d}.safetensors" if len(parts) > 1 else "model.safetensors"
        write_container(folder / file, {name: as_tensor(weights[name]) for name in names}, {"format": "mlx"})
        weight_map |= dict.fromkeys(names, file)
    metadata = {"total_size": sum(leaf.nbytes for leaf in weights.values()), "total_parameters": total_parameters}
    index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=4), encoding="utf-8")


def shards(weights: Mapping[str, Array], shard_bytes: int) -> Iterator[list[str]]:
    """Divide weights, in order, into lists of names whose arrays have at most so many bytes together.

    >>> import mlx.core as mx
    >>> list(shards({"a": mx.zeros(1), "b": mx.zeros(1), "c": mx.zeros(9)}, 8))
    [['a', 'b'], ['c']]
    """
    names: list[str] = []
    size = 0
    for name, leaf in weights.items():
        if names and size + leaf.nbytes > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += leaf.nbytes
    yield names
