"""Import MLX: every module of the library takes `mx`, `mlx.nn` and `mlx.optimizers` from here.

Where MLX is not installed, stand-ins replace its modules. The first use of a stand-in raises an error that names the
extra to install. The first import of this module lets the folder `cpu/` prepare MLX on Linux CPUs. No other module
imports `cpu/`. Without that folder the library uses MLX as it is.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._absent import Absent

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as mlx_nn
    import mlx.optimizers as mlx_optimizers
    from mlx import utils

__all__ = ["cpu", "mlx_nn", "mlx_optimizers", "mx", "on_cpu", "utils"]

_MODULES = {"mx": "mlx.core", "utils": "mlx.utils", "mlx_nn": "mlx.nn", "mlx_optimizers": "mlx.optimizers"}


def __getattr__(name: str) -> Any:
    """Load a module of MLX at its first use, or return a stand-in where MLX is not installed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = _import_or_stand_in(_MODULES[name])
    return value


def _import_or_stand_in(name: str) -> Any:
    try:
        import_module("mlx.core")  # this fails for a Linux wheel without its backend
        return import_module(name)
    except ImportError as error:
        return Absent(name, error)


if not TYPE_CHECKING:
    mx, utils = _import_or_stand_in("mlx.core"), _import_or_stand_in("mlx.utils")

_CPU = __name__.replace("core._mlx", "cpu")


def _find_cpu() -> ModuleType | None:
    if isinstance(mx, Absent):
        return None
    try:
        return import_module(_CPU)
    except ModuleNotFoundError as error:
        if error.name != _CPU:
            raise
        return None


cpu = _find_cpu()
"""The module for Linux CPUs. None where the folder `cpu/` or MLX is missing."""

if cpu is not None:
    cpu.prepare()


_CPU_TYPE = mx.DeviceType.cpu


def on_cpu() -> bool:
    """Tell whether the CPU is the default device of MLX now. The library calls this at every step."""
    return mx.default_device().type is _CPU_TYPE
