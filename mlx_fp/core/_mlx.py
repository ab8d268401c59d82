"""The door to MLX: every module that touches an array takes `mx` from here, and so `mlx.nn` and `mlx.optimizers`.

Where MLX is missing, stand-ins take the place of its modules: the first use says which extra to install. The first
import lets the folder `cpu/` prepare MLX on Linux CPUs. This is the only place that imports `cpu/`; without that folder
MLX is used as it is.
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
    """Load a module of MLX when it is first asked for; a stand-in where MLX is not installed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = _found(_MODULES[name])
    return value


def _found(name: str) -> Any:
    try:
        import_module("mlx.core")  # a Linux wheel without its backend fails here
        return import_module(name)
    except ImportError as error:
        return Absent(name, error)


if not TYPE_CHECKING:
    mx, utils = _found("mlx.core"), _found("mlx.utils")

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
"""The module that serves Linux CPUs, None where the library comes without it, or without MLX."""

if cpu is not None:
    cpu.prepare()


_CPU_TYPE = mx.DeviceType.cpu


def on_cpu() -> bool:
    """Tell whether MLX computes on the CPU by default, at this moment; asked at every step."""
    return mx.default_device().type is _CPU_TYPE
