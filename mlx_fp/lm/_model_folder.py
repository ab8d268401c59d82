"""The folder of a model: find it, and check that mlx-lm can load it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from ..core._errors import nearest, say_on
from ..core._user_path import user_path
from ._mlx_lm import mlx_lm

__all__ = ["check_model_folder", "find_model_folder"]


def find_model_folder(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a model: a local folder, or the local copy of a repository on the Hub.

    Args:
        source: A folder, or a name on the Hugging Face Hub such as `"mlx-community/Qwen3-0.6B-4bit"`.
        revision: A branch, tag or commit of the repository. Default: its main branch.

    Raises:
        FileNotFoundError: The folder does not exist, and its name cannot be a name on the Hub.
    """
    folder = user_path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, os.PathLike) or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) or folder.exists():
        raise FileNotFoundError(_no_folder(folder))
    utils = mlx_lm("mlx_lm.utils")
    try:
        return Path(utils.snapshot_download(source, revision=revision, allow_patterns=utils.DEFAULT_ALLOW_PATTERNS))
    except Exception as error:
        say_on(error, f"{source!r} is no folder here, so it was looked up on the Hugging Face Hub")
        raise


def check_model_folder(folder: Path, model_config: Mapping[str, Any]) -> None:
    """Raise an error, with the remedy, for a folder that mlx-lm cannot load.

    Args:
        folder: The folder.
        model_config: Entries that replace entries of `config.json`.

    Raises:
        FileNotFoundError: The folder has no `config.json`.
        ValueError: The config has no model type, or mlx-lm has no model of its type.
    """
    file = folder / "config.json"
    if not file.is_file():
        adapters = (folder / "adapter_config.json").is_file()
        hint = ": it has adapters, so give it as adapter_path=" if adapters else ""
        raise FileNotFoundError(f"{folder} has no config.json, which the folder of a model has{hint}")
    try:
        config = {**json.loads(file.read_text(encoding="utf-8")), **model_config}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no config of a model: {error}") from None
    if "model_file" not in config:
        _check_type(config.get("model_type"), file)


def _check_type(model_type: object, file: Path) -> None:
    """Raise ValueError unless mlx-lm has a model of this type."""
    if not isinstance(model_type, str):
        raise ValueError(f"{file} has no model_type, the name of a model of mlx-lm; got {model_type!r}")
    names = {module.name for module in iter_modules(mlx_lm("mlx_lm.models").__path__)}
    names |= mlx_lm("mlx_lm.utils").MODEL_REMAPPING.keys()
    if model_type not in names:
        similar = ", ".join(nearest(model_type, sorted(names))) or "none"
        raise ValueError(f"{file}: mlx-lm has no model type {model_type!r}; nearest: {similar}")


def _no_folder(folder: Path) -> str:
    """Return the message for a folder that does not exist, with the nearest names beside it."""
    if folder.exists():
        return f"{folder} is a file; the source of a model is its folder"
    names = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
    similar = ", ".join(nearest(folder.name, names)) or "none"
    return f"there is no folder {folder}; nearest: {similar}"
