"""Save adapters in the layout of mlx-lm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core._container import write_container
from ..core._files import write_whole
from ..core._tensors import as_tensor
from ..core._types import Array, Params
from ..core._user_path import user_path
from ..nn._layer import Layer, require_layer
from ..nn._lowered import lower
from ..tree._paths import flat
from ._adapter_config import ADAPTER_LEAVES, CONFIG, WEIGHTS, adapters_in, check_base, config_of
from ._given_params import Given, given_params

__all__ = ["save_adapters"]


def save_adapters(folder: str | os.PathLike[str], model: Layer) -> Callable[[Given], Path]:
    """Save the adapters of a model in the layout of mlx-lm; the call is `save_adapters(folder, model)(params)`.

    The folder gets `adapters.safetensors` and `adapter_config.json`. `mlx_lm.load(path, adapter_path=folder)` gives the
    same model, bit for bit; `mlx_lm.generate` and `mlx_lm.fuse` read the folder, too. A model without adapters is saved
    as mlx-lm's full fine-tuning: the file has the parameters that train.

    Args:
        folder: The folder. Other files in it stay. `~` is the home folder of the user.
        model: The Layer with adapters, as `nn.lora` or `nn.dora` makes it.

    Returns:
        A function of parameters, or of a report or checkpoint with them, that writes the files and returns the folder.

    Raises:
        ValueError: mlx-lm cannot express the adapters, because they differ in kind, rank, scale or dropout, or because
            other parameters train beside them. Or the base is no longer the model that was loaded, for example after
            `nn.quantized`. Or the parameters are not those of the model.
        TypeError: The model is none of mlx-lm.
    """
    require_layer(model, "save_adapters")
    target = user_path(folder)

    def write(params: Given) -> Path:
        tree = given_params(model, params)
        module = lower(model, tree)
        adapters = adapters_in(module)
        content = config_of(module, adapters)
        leaves = _saved_leaves(model, tree, adapters)
        check_base(module, adapters, leaves)
        tensors = {path: as_tensor(leaf) for path, leaf in leaves.items()}
        _write_config(target, content)
        write_whole(target / WEIGHTS, lambda new: write_container(new, tensors, {"format": "mlx"}))
        return target

    return write


def _saved_leaves(model: Layer, params: Params, adapters: Collection[str]) -> dict[str, Array]:
    """Return the arrays of the adapters; of a model without adapters, the arrays that train."""
    leaves, trains = flat(params), model.trainable(params)
    trained = {path: leaf for path, leaf in leaves.items() if trains(path, leaf)}
    if not adapters:
        if not trained:
            raise ValueError(f"{model.name} has no adapters and no parameters that train, so there is nothing to save")
        return trained
    names = {f"{place}.{name}" for place in adapters for name in ADAPTER_LEAVES}
    beside = [path for path in trained if path not in names]
    if beside:
        raise ValueError(
            f"mlx-lm reads adapters alone, and {', '.join(beside[:3])} trains beside them: freeze it, or save the "
            "whole model with lm.save after nn.merged"
        )
    return {path: leaf for path, leaf in leaves.items() if path in names}


def _write_config(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the config. If it changes, delete the old weights first: no config describes the weights of another."""
    text = json.dumps(dict(sorted(content.items())), indent=4).encode()
    file = folder / CONFIG
    if file.is_file() and file.read_bytes() == text:
        return
    with suppress(FileNotFoundError):
        (folder / WEIGHTS).unlink()
    write_whole(file, text)
