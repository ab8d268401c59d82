"""The trackers by name. The package of a tracker is imported when the tracker is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
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


BACK_ENDS: Mapping[str, BackEnd] = {
    "csv": BackEnd("._csv_tracker", "CsvTracker"),
    "tensorboard": BackEnd("._tensorboard", "TensorBoard", "tensorboardX"),
}


def back_end(name: str, options: Mapping[str, Any]) -> Callable[[], Tracker]:
    """Return a function that makes a tracker.

    Raise ValueError with candidates for an unknown name, TypeError with candidates for an unknown option, and
    ImportError with the extra where the package is missing.

    >>> back_end("cvs", {})
    Traceback (most recent call last):
    ValueError: unknown tracker 'cvs': did you mean 'csv'? known: csv, ...
    >>> back_end("csv", {"file": "a.csv"})
    Traceback (most recent call last):
    TypeError: unknown option of track('csv') 'file': did you mean ...
    """
    if name not in BACK_ENDS:
        raise ValueError(unknown("tracker", name, BACK_ENDS))
    module, kind, package = BACK_ENDS[name]
    if package is not None:
        _import_package(name, package)
    make = getattr(import_module(module, __package__), kind)
    _check_options(name, make, options)
    return partial(make, **options)


def _import_package(name: str, package: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(f"track({name!r}) needs {package}: pip install 'mlx-fp[{name}]'") from error


def _check_options(name: str, make: Callable[..., Tracker], options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that a tracker does not have."""
    names = list(inspect.signature(make).parameters)
    for option in options:
        if option not in names:
            raise TypeError(unknown(f"option of track({name!r})", option, names))
