"""Load adapters in the layout of mlx-lm onto a layer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core._errors import nearest, unknown
from ..core._mlx import mx
from ..core._types import Array, Params
from ..core._user_path import user_path
from ..nn._adapters import dora, lora
from ..nn._layer import Layer, require_layer, shapes
from ..nn._lowered import lower
from ..tree._paths import flat, restore_like
from ._adapter_config import ADAPTER_LEAVES, CONFIG, WEIGHTS
from ._adapter_keys import adapted_paths, blocks_of, default_keys

__all__ = ["AdaptedParams", "load_adapters"]

_KINDS = {"lora": lora, "dora": dora}


@dataclass(frozen=True, slots=True)
class AdaptedParams:
    """Make the parameters of a model, with the arrays of a file of adapters in their places.

    Args:
        base: The `init` of the model.
        file: The file, which is read each time. Nothing stays loaded.
    """

    base: Callable[..., Params]
    file: str

    def __call__(self, key: int | Array | None = None) -> Params:
        """Return the parameters. The arrays of the file are lazy."""
        params = self.base(key)
        return restore_like(params, {**flat(params), **_read(self.file)})


def load_adapters(folder: str | os.PathLike[str]) -> Callable[[Layer], Layer]:
    """Put the adapters of a folder in the layout of mlx-lm on a layer, as `mlx_lm.load(adapter_path=…)` does.

    The `init` of the adapted layer gives the weights of the base and the arrays of the adapters. Only the adapters
    train. A folder of full fine-tuning gives a layer without adapters, and `init` gives its weights.

    Args:
        folder: The folder with `adapters.safetensors` and `adapter_config.json`. `~` is the home folder of the user.

    Returns:
        A function of a Layer, from `lm.load` or a lifted model of mlx-lm, that returns the adapted layer.

    Raises:
        FileNotFoundError: The folder or a file of it does not exist.
        ValueError: The config is damaged or of an unknown kind, or the arrays do not fit the model.
        TypeError: The model is none of mlx-lm.
    """
    source = user_path(folder).absolute()
    config = _read_config(source)
    kind = config.get("fine_tune_type", "lora")
    if kind not in (*_KINDS, "full"):
        raise ValueError(f"{source / CONFIG}: {unknown('fine_tune_type', kind, (*_KINDS, 'full'))}")

    def adapt(target: Layer) -> Layer:
        require_layer(target, "load_adapters")
        adapted = target if kind == "full" else _with_adapters(target, kind, config, source)
        _check_arrays(adapted, source / WEIGHTS, full=kind == "full")
        return replace(adapted, init=AdaptedParams(adapted.init, str(source / WEIGHTS)))

    return adapt


def _with_adapters(target: Layer, kind: str, config: Mapping[str, Any], source: Path) -> Layer:
    module = lower(target, shapes(target))
    blocks, options = blocks_of(module), config["lora_parameters"]
    keys = default_keys(module, blocks) if options.get("keys") is None else options["keys"]
    places = adapted_paths([path for path, _ in module.named_modules()], blocks, keys, config["num_layers"])
    if not places:
        raise ValueError(f"{source / CONFIG}: its keys name no module of {target.name}: {', '.join(keys) or 'none'}")
    return _KINDS[kind](sorted(places), rank=options["rank"], scale=options["scale"], dropout=options["dropout"])(
        target
    )


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the config of adapters; raise an error with the name of the file that is missing or wrong."""
    if not folder.is_dir():
        names = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise FileNotFoundError(
            f"there is no folder {folder}; nearest: {', '.join(nearest(folder.name, names)) or 'none'}"
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}, which a folder of adapters has")
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config.get("fine_tune_type", "lora") != "full":
            missing = [name for name in ("rank", "scale", "dropout") if name not in config["lora_parameters"]]
            missing += ["num_layers"] if "num_layers" not in config else []
            if missing:
                raise ValueError(f"it has no {', '.join(missing)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} is no config of adapters: {error}") from None
    return config


def _check_arrays(target: Layer, file: Path, *, full: bool) -> None:
    """Raise ValueError unless each array of a file has a place of its shape, and each array of an adapter is there."""
    expected, given = flat(shapes(target)), _read(str(file))
    allowed = expected if full else {p: leaf for p, leaf in expected.items() if p.rpartition(".")[2] in ADAPTER_LEAVES}
    faults = [f"{path} has no place in {target.name}" for path in given if path not in allowed]
    faults += [
        f"{path} has shape {leaf.shape}; expected {allowed[path].shape}"
        for path, leaf in given.items()
        if path in allowed and leaf.shape != allowed[path].shape
    ]
    faults += [f"{path} is missing" for path in ({} if full else allowed) if path not in given]
    if faults:
        raise ValueError(f"{file} does not fit the model and its config: {'; '.join(faults[:5])}")


def _read(file: str) -> dict[str, Array]:
    arrays: Any = mx.load(file)
    return dict(arrays)
