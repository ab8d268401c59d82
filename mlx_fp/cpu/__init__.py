"""Run MLX well on Linux CPUs: a fast BLAS, native kernels, and a `Backend` for small arrays and few cores.

This folder stands beside the floors of the library. Only the door to MLX, `core/_mlx.py`, imports it.
If the folder is deleted, the library still works, and computes as MLX does by itself.

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
"""Names that are imported at their first use, because their modules import MLX."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value


def prepare() -> None:
    """Bind MLX to a fast BLAS and apply the environment variables. Called once, at the first use of MLX."""
    blas()
    enable_from_environment()


def backend() -> Backend:
    """Return the backend for Linux CPUs. The library calls this at every step."""
    return _backends()[is_native()]


@cache
def _backends() -> tuple[Backend, Backend]:
    """Return the backends for stock and for native kernels."""
    from ._backend import NATIVE, STOCK  # a late import: the first step needs it, `import mlx_fp` does not
    from ._builds import patch_builds

    if not is_native():
        patch_builds()
    return STOCK, NATIVE
