"""Save a whole model in the layout of mlx-lm and Hugging Face."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core._mlx import mlx_nn
from ..core._options import FLAG, check_options, count
from ..core._user_path import user_path
from ..nn._layer import Layer, require_layer
from ..nn._lowered import lower
from ..store._folders import write_folder
from ..tree._paths import flat
from ._given_params import Given, given_params
from ._loading import Tokenizer
from ._mlx_lm import mlx_lm
from ._model_folder import check_model_folder
from ._quantization import quantization_entry
from ._shards import write_weights
from ._source import Source, build, source_of

__all__ = ["save"]

_KEPT_FILES = ("*.py", "generation_config.json")
"""Files of the folder of a model that belong to a saved model, too."""


def save(
    folder: str | os.PathLike[str],
    model: Layer,
    *,
    tokenizer: Tokenizer | None = None,
    config: Mapping[str, Any] | None = None,
    shard_bytes: int = 5 << 30,
    overwrite: bool = False,
) -> Callable[[Given], Path]:
    """Save a whole model in the layout of mlx-lm; the call is `save(folder, model)(params)`.

    `mlx_lm.load(folder)` gives the same model, bit for bit, and so does `lm.load`. The folder has `config.json`, with
    the quantisation of the modules, `model.safetensors` or several shards, an index, and the files of the tokenizer. It
    appears complete or not at all, and it appears only if mlx-lm finds every weight in it. The model is in memory once.

    Args:
        folder: A new or empty folder. `~` is the home folder of the user.
        model: The Layer, from `lm.load` or a lifted model of mlx-lm.
        tokenizer: The tokenizer. Default: the tokenizer of the folder from which the model was loaded.
        config: The content of `config.json`. Default: that of the loaded model. A lifted model needs it.
        shard_bytes: The largest number of bytes of a file of weights. Default: 5 GiB.
        overwrite: Whether to replace an old folder of a model. Default: False.

    Returns:
        A function of parameters, or of a report or checkpoint with them, that writes the folder and returns its path.

    Raises:
        FileExistsError: The folder has files, and `overwrite` is False or it is no folder of a model.
        ValueError: The model has adapters (merge them first), the parameters are not those of the model, or the config
            does not describe the model.
        TypeError: The config or the tokenizer is needed and missing.
    """
    rules = {"shard_bytes": count(1), "overwrite": FLAG}
    check_options("save", {"shard_bytes": shard_bytes, "overwrite": overwrite}, rules)
    require_layer(model, "save")

    def write(params: Given) -> Path:
        module = lower(model, given_params(model, params))
        _refuse_adapters(module)
        _check_replaced(user_path(folder), overwrite)
        source = source_of(module)
        content, words = _config(module, source, config), _tokenizer(tokenizer, source)

        def fill(new: Path) -> None:
            utils = mlx_lm("mlx_lm.utils")
            write_weights(new, flat(module.parameters()), shard_bytes, utils.get_total_parameters(module))
            has_vision = "vision_tower" in getattr(module, "model", {})
            utils.save_config(content, new / "config.json", keep_vision_config=has_vision)
            words.save_pretrained(new)
            _copy_kept_files(source, new)
            _check_readable(new, source)

        return write_folder(folder, fill, replace=overwrite)

    return write


def _refuse_adapters(module: mlx_nn.Module) -> None:
    path = next((path for path in flat(module.parameters()) if path.rpartition(".")[2] == "lora_a"), None)
    if path is not None:
        raise ValueError(
            f"{path.removesuffix('.lora_a')} has an adapter, and the files of a whole model have none: merge it first, "
            "as in merged = nn.merged(params)(model), or save the adapters alone with lm.save_adapters"
        )


def _check_replaced(folder: Path, overwrite: bool) -> None:
    """Raise FileExistsError for a folder with files, unless it is a folder of a model that may be replaced."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "config.json").is_file():
        raise FileExistsError(f"{folder} has files that are no model: give a new folder")
    if not overwrite:
        raise FileExistsError(f"{folder} has a model: give a new folder, or replace it with overwrite=True")


def _config(module: mlx_nn.Module, source: Source | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of `config.json`: the given config, or that of the source, with the module's quantisation."""
    if config is None and source is None:
        raise TypeError("save needs config=, the content of config.json, for a model that lm.load did not load")
    content: dict[str, Any] = json.loads(source.config) if source and config is None else dict(config or {})
    entry = quantization_entry(module)
    if entry is not None:
        content["quantization"] = entry
    elif content.get("quantization_config", {}).get("quant_method") != "bitnet":  # bitnet has layers of its own
        content.pop("quantization", None)
        content.pop("quantization_config", None)
    return content


def _tokenizer(tokenizer: Tokenizer | None, source: Source | None) -> Tokenizer:
    if tokenizer is None and source is None:
        raise TypeError(
            "save needs tokenizer= for a model that lm.load did not load: mlx-lm loads both from one folder"
        )
    return mlx_lm("mlx_lm.utils").load_tokenizer(Path(source.folder)) if tokenizer is None and source else tokenizer


def _copy_kept_files(source: Source | None, new: Path) -> None:
    if source is None:
        return
    for pattern in _KEPT_FILES:
        for file in Path(source.folder).glob(pattern):
            shutil.copy(file, new)


def _check_readable(new: Path, source: Source | None) -> None:
    """Raise ValueError unless mlx-lm finds every weight of the new folder at its place, by names and shapes."""
    check_model_folder(new, {})
    try:
        build(Source(str(new), trust_remote_code=source is not None and source.trust_remote_code))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the config does not describe this model, so mlx-lm cannot load it: {error}") from error
