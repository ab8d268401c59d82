"""Load a model of mlx-lm as a layer, its parameters and its tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from ..core._mlx import mx
from ..core._options import FLAG, check_options
from ..core._types import Params
from ..nn._layer import Layer
from ..nn._lift import split
from ._loading_adapters import load_adapters
from ._mlx_lm import mlx_lm
from ._model_folder import check_model_folder, find_model_folder
from ._source import FileParams, Source, build, remember

__all__ = ["Tokenizer", "load"]

Tokenizer: TypeAlias = Any
"""A tokenizer of mlx-lm or of transformers."""


def load(
    source: str | os.PathLike[str],
    *,
    adapter_path: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    lazy: bool = True,
    model_config: Mapping[str, Any] | None = None,
    tokenizer_config: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> tuple[Layer, Params, Tokenizer]:
    """Load a language model by the loader of mlx-lm: `(layer, params, tokenizer)`.

    The layer has mlx-lm's module and parameter paths. Quantised weights stay as the files have them, and do not train.
    The layer holds no arrays: its `init` gives the weights of the files, whatever the seed. So `fit` needs no
    `params=`, a resumed run finds its frozen weights, and full fine-tuning holds the old weights no longer than until
    the first update.

    Args:
        source: A folder with `config.json`, `model*.safetensors` and the files of a tokenizer. Or a name on the Hugging
            Face Hub, which is downloaded once.
        adapter_path: A folder of adapters, as for `lm.load_adapters`. Default: none.
        revision: A branch, tag or commit on the Hub. Default: the main branch.
        lazy: Whether MLX reads an array at its first use, so that parameters that nobody uses take no memory. If False,
            all arrays are read now, for example because the files will change. Default: True.
        model_config: Entries that replace entries of `config.json`.
        tokenizer_config: Options of the tokenizer, as `AutoTokenizer.from_pretrained` takes them.
        trust_remote_code: Whether a Python file of the folder may define the model. Default: False.

    Returns:
        The Layer, its parameters, and mlx-lm's tokenizer.

    Raises:
        FileNotFoundError: There is no such folder, no `config.json`, or no weights; the message has the nearest names.
        ValueError: mlx-lm has no model of this type; the message has the nearest types. Or the adapters do not fit.
        TypeError: An option has a wrong type, or `model_config` has values that JSON does not have.
        ImportError: mlx-lm is not installed.
    """
    check_options("load", {"lazy": lazy, "trust_remote_code": trust_remote_code}, dict.fromkeys(_FLAGS, FLAG))
    folder = find_model_folder(source, revision).absolute()
    check_model_folder(folder, model_config or {})
    files = Source(str(folder), "{}", json.dumps(dict(model_config or {})), trust_remote_code)
    module, config = build(files)
    files = replace(files, config=json.dumps(config))
    remember(module, files)
    layer = replace(split(module)[0], init=FileParams(files))
    layer = layer if adapter_path is None else load_adapters(adapter_path)(layer)
    params = layer.init()
    if not lazy:
        mx.eval(params)
    tokenizer = mlx_lm("mlx_lm.utils").load_tokenizer(
        folder, dict(tokenizer_config or {}), eos_token_ids=config.get("eos_token_id")
    )
    return layer, params, tokenizer


_FLAGS = ("lazy", "trust_remote_code")
