"""The trackers by name. The package of a tracker is imported when the tracker is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from ..core._errors import unknown
from ._tracker import Tracker

__all__ = ["BACK_ENDS", "back_end"]


class BackEnd(NamedTuple):
    """The class of a tracker, and the package that it needs."""

    module: str
    kind: str
    package: str | None = None
    """The package to import; None: no package is needed. The extra has the name of the tracker."""
    has_init: bool = False
    """Whether further options go to the function `init` of the package."""


BACK_ENDS: Mapping[str, BackEnd] = {
    "csv": BackEnd("._csv_tracker", "CsvTracker"),
    "tensorboard": BackEnd("._tensorboard", "TensorBoard", "tensorboardX"),
    "wandb": BackEnd("._wandb", "Wandb", "wandb", has_init=True),
    "trackio": BackEnd("._wandb", "Trackio", "trackio", has_init=True),
    "mlflow": BackEnd("._mlflow", "MLflow", "mlflow"),
    "swanlab": BackEnd("._swanlab", "SwanLab", "swanlab", has_init=True),
}
"""Each tracker by its name."""

_OURS = ("config", "id", "resume")
"""The options of `init` that a tracker gives. `track(settings=…)` adds to the config."""


def back_end(name: str, options: Mapping[str, Any]) -> Callable[[], Tracker]:
    """Return a function that makes a tracker.

    Raise ValueError with candidates for an unknown name, TypeError with candidates for an unknown option, and
    ImportError with the extra where the package is missing.

    >>> back_end("cvs", {})
    Traceback (most recent call last):
    ValueError: unknown tracker 'cvs': did you mean 'csv'? known: csv, ...
    >>> back_end("csv", {"paths": "a.csv"})
    Traceback (most recent call last):
    TypeError: unknown option of track('csv') 'paths': did you mean 'path'? known: path
    """
    if name not in BACK_ENDS:
        raise ValueError(unknown("tracker", name, BACK_ENDS))
    module, kind, package, has_init = BACK_ENDS[name]
    imported = None if package is None else _import_package(name, package)
    make = getattr(import_module(module, __package__), kind)
    names = [*_option_names(make), *(_option_names(getattr(imported, "init")) if has_init else ())]  # noqa: B009
    for option in options:
        if option not in names:
            raise TypeError(unknown(f"option of track({name!r})", option, dict.fromkeys(names)))
    make(**options)  # an error of an option now, and not as a warning in the run
    return partial(make, **options)


def _import_package(name: str, package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(f"track({name!r}) needs {package}: pip install 'mlx-fp[{name}]'") from error


def _option_names(function: Callable[..., object]) -> list[str]:
    """Return the names of the options of a function, without those that a tracker gives."""
    parameters = inspect.signature(function).parameters
    return [name for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD and name not in _OURS]
