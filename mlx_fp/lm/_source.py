"""The files that a model of mlx-lm comes from, remembered by its module."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compile import rng
from ..core._mlx import mlx_nn
from ..core._types import Array, Params
from ..nn._module import parameters
from ._mlx_lm import mlx_lm

__all__ = ["FileParams", "Source", "build", "remember", "source_of"]

_ATTRIBUTE = "_mlx_fp_source"


@dataclass(frozen=True, slots=True)
class Source:
    """Hold the folder of a model, and the options with which mlx-lm builds the model from the folder.

    Args:
        folder: The folder with `config.json` and `model*.safetensors`.
        config: The config as the loader of mlx-lm returned it, as JSON text.
        model_config: The entries that replace entries of `config.json`, as JSON text.
        trust_remote_code: Whether the loader may run a Python file of the folder.
    """

    folder: str
    config: str = "{}"
    model_config: str = "{}"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class FileParams:
    """Make the parameters of a model from its files. MLX reads an array when it is evaluated, so nothing stays loaded.

    Args:
        source: The files.
    """

    source: Source

    def __call__(self, key: int | Array | None = None) -> Params:
        """Return the parameters as lazy arrays, the same for each key."""
        return parameters(build(self.source)[0])


def build(source: Source) -> tuple[mlx_nn.Module, dict[str, Any]]:
    """Build a module with lazy arrays by the loader of mlx-lm; return the module and its config.

    The loader draws initial weights, which it then replaces; the random stream of the caller does not move.
    """
    load_model = mlx_lm("mlx_lm.utils").load_model
    built: tuple[mlx_nn.Module, dict[str, Any]] = rng.run(
        0,
        lambda: load_model(
            Path(source.folder),
            lazy=True,
            model_config=json.loads(source.model_config),
            trust_remote_code=source.trust_remote_code,
        ),
    )[0]
    return built


def remember(module: mlx_nn.Module, source: Source) -> None:
    """Store the source in the module. Copies of the module have it, too."""
    setattr(module, _ATTRIBUTE, source)


def source_of(module: mlx_nn.Module) -> Source | None:
    """Return the source of a module, or None if its weights do not come from files.

    >>> module = mlx_nn.Linear(2, 2)
    >>> source_of(module)
    >>> remember(module, Source("models/base"))
    >>> source_of(module).folder, list(module.parameters())
    ('models/base', ['weight', 'bias'])
    """
    source: Source | None = vars(module).get(_ATTRIBUTE)
    return source
