"""The adapters of a model as the entries of `adapter_config.json`, which mlx-lm reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..core._mlx import mlx_nn
from ..core._types import Array
from ..tree._paths import flat
from ._adapter_keys import blocks_of, keys_of
from ._source import FileParams, source_of

__all__ = ["ADAPTER_LEAVES", "CONFIG", "WEIGHTS", "Adapter", "adapters_in", "check_base", "config_of"]

WEIGHTS = "adapters.safetensors"
"""The name of the file with the arrays of adapters."""

CONFIG = "adapter_config.json"
"""The name of the file that says where the adapters are."""

ADAPTER_LEAVES = {"lora_a", "lora_b", "m"}
"""The names of the arrays of an adapter in mlx-lm."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Hold the kind and the options of an adapter.

    Args:
        kind: "lora" or "dora".
        rank: The rank of its matrices.
        scale: The factor of its output.
        dropout: The probability that its dropout zeroes an input.
    """

    kind: str
    rank: int
    scale: float
    dropout: float

    def __str__(self) -> str:
        return f"{self.kind} of rank {self.rank}, scale {self.scale:g}, dropout {self.dropout:g}"


def adapters_in(module: mlx_nn.Module) -> dict[str, Adapter]:
    """Return the adapters in a module by the paths of the modules that they adapt."""
    return dict(_adapters(module))


def config_of(module: mlx_nn.Module, adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    """Return the content of `adapter_config.json` for a model with these adapters.

    Without adapters the content describes full fine-tuning.

    Args:
        module: The model, with its adapters in it.
        adapters: Its adapters by path.

    Raises:
        ValueError: The adapters differ; mlx-lm has one kind, rank, scale and dropout for all.
        TypeError: The model is none of mlx-lm.
    """
    source, blocks = source_of(module), blocks_of(module)
    model = {"model": source.folder} if source else {}
    if not adapters:
        return {**model, "fine_tune_type": "full", "num_layers": len(blocks)}
    adapter = _one_of(adapters)
    keys, num_layers = keys_of([path for path, _ in module.named_modules()], blocks, adapters)
    options = {"rank": adapter.rank, "scale": adapter.scale, "dropout": adapter.dropout, "keys": keys}
    return {**model, "fine_tune_type": adapter.kind, "num_layers": num_layers, "lora_parameters": options}


def check_base(module: mlx_nn.Module, adapters: Collection[str], saved: Collection[str]) -> None:
    """Raise ValueError unless the files of a model have the rest of its arrays, by paths, shapes and dtypes.

    mlx-lm puts the saved arrays on the model of the files. On another base, for example a quantised one, they would
    compute other numbers. A model that does not come from files is not checked.

    Args:
        module: The model, with its adapters in it.
        adapters: The paths of the adapted modules.
        saved: The paths of the arrays in the file of the adapters.
    """
    source = source_of(module)
    if source is None:
        return
    base = {f"{place}.{name}": place for place in adapters for name in ("linear", "embedding")}
    own = {_base_path(path, base): leaf for path, leaf in flat(module.parameters()).items() if path not in saved}
    files = {path: leaf for path, leaf in flat(FileParams(source)()).items() if path not in saved}
    other = [path for path in files | own if _kind(files.get(path)) != _kind(own.get(path))]
    if other:
        raise ValueError(
            f"{', '.join(other[:3])}: the base is not the model of {source.folder}, on which mlx-lm would put the "
            "adapters: save the base with lm.save, load it, and train adapters on it; or save the whole model after "
            "nn.merged"
        )


def _base_path(path: str, base: Mapping[str, str]) -> str:
    """Return the path that an array of an adapted module has in the model without adapters."""
    module, _, name = path.rpartition(".")
    return f"{base[module]}.{name}" if module in base else path


def _kind(leaf: Array | None) -> object:
    return None if leaf is None else (leaf.shape, leaf.dtype)


def _one_of(adapters: Mapping[str, Adapter]) -> Adapter:
    """Return the one kind of adapter that all places have; raise ValueError for two kinds."""
    path, adapter = next(iter(adapters.items()))
    for other_path, other in adapters.items():
        if other != adapter:
            raise ValueError(
                f"mlx-lm has one kind, rank, scale and dropout for all adapters; {path} has {adapter}, and "
                f"{other_path} has {other}: save the whole model after nn.merged, or the parameters with fp.save"
            )
    return adapter


def _adapters(module: mlx_nn.Module) -> Iterator[tuple[str, Adapter]]:
    for path, part in module.named_modules():
        if "lora_a" in part:
            a = part["lora_a"]
            rank = a.shape[1 if a.ndim == 3 else -1]  # experts have (experts, rank, inputs)
            keep: float = part.dropout._p_1
            yield path, Adapter("dora" if "m" in part else "lora", rank, part.scale, round(1 - keep, 10))
