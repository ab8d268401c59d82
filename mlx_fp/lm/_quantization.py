"""The entry of a config that says how the modules of a model are quantised."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..core._mlx import mlx_nn, mx

__all__ = ["quantization_entry"]

_SETTINGS = ("group_size", "bits", "mode")


def quantization_entry(module: mlx_nn.Module) -> dict[str, Any] | None:
    """Return the entry `quantization` of `config.json`, or None for a module without quantised parts.

    The entry has the settings of most parts, and by path the settings of each part that differs. mlx-lm quantises
    those modules whose scales are among the weights.

    >>> net = mlx_nn.Sequential(mlx_nn.Linear(64, 64), mlx_nn.Linear(64, 8))
    >>> mlx_nn.quantize(net, 32, 8, class_predicate=lambda path, m: path == "layers.1")
    >>> quantization_entry(net)
    {'group_size': 32, 'bits': 8, 'mode': 'affine'}
    """
    settings = {path: _settings(part) for path, part in module.named_modules() if _is_quantized(part)}
    if not settings:
        return None
    (most_common, _), *_ = Counter(tuple(each[name] for name in _SETTINGS) for each in settings.values()).most_common()
    default = dict(zip(_SETTINGS, most_common, strict=True))
    return {**default, **{path: each for path, each in settings.items() if each != default}}


def _is_quantized(part: Any) -> bool:
    return isinstance(part.get("scales"), mx.array) and hasattr(part, "bits") and hasattr(part, "group_size")


def _settings(part: Any) -> dict[str, Any]:
    settings = {"group_size": part.group_size, "bits": part.bits, "mode": getattr(part, "mode", "affine")}
    return {**settings, "global_scale": True} if "global_scale" in part else settings
