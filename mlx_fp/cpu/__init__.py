"""MLX on Linux CPUs: a fast BLAS, native kernels, and a `Backend` that suits small arrays and few cores.

This folder stands beside the floors. Only the door to MLX, `core/_mlx.py`, imports it, and without it the library
computes as MLX does by itself.

>>> from mlx_fp import cpu
>>> isinstance(cpu.kernels().native, bool)
True
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._blas import BlasInfo, blas
from ._native import KernelInfo, enable_from_environment, is_native, kernels, native

if TYPE_CHECKING:
    from ..core.backend import Backend
    from ._affinity import one_core as one_core
    from ._limits import tuned as tuned

__all__ = ["BlasInfo", "KernelInfo", "blas", "kernels", "native", "one_core", "tuned"]

_LATER = {"one_core": "._affinity", "tuned": "._limits"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value


def prepare() -> None:
    """Bind MLX to a fast BLAS and obey the environment, once, when MLX is first used."""
    blas()
    enable_from_environment()


def backend() -> Backend:
    """Return how Linux CPUs want a step computed; asked at every step."""
    return _backends()[is_native()]


@cache
def _backends() -> tuple[Backend, Backend]:
    from ._backend import NATIVE, STOCK  # loaded with the first step

    return STOCK, NATIVE
