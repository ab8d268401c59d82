"""The door to MLX: every module that touches an array takes `mx` from here.

The first import says which extra to install where MLX is missing, and lets the folder `cpu/` prepare MLX on Linux CPUs.
This is the only place that imports `cpu/`; without that folder MLX is used as it is.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["cpu", "mx", "on_cpu", "utils"]

try:
    import mlx.core as mx
    from mlx import utils
except ImportError as error:  # no mlx, or the Linux wheel without its backend
    raise ImportError(
        "this part of mlx_fp needs MLX: pip install 'mlx-fp[cpu]' on a Linux CPU, 'mlx-fp[cuda12]' or "
        "'mlx-fp[cuda13]' with an NVIDIA GPU, 'mlx-fp' on macOS"
    ) from error

_CPU = __name__.replace("core._mlx", "cpu")


def _find_cpu() -> ModuleType | None:
    try:
        return import_module(_CPU)
    except ModuleNotFoundError as error:
        if error.name != _CPU:
            raise
        return None


cpu = _find_cpu()
"""The module that serves Linux CPUs, None where the library comes without it."""

if cpu is not None:
    cpu.prepare()


_CPU_TYPE = mx.DeviceType.cpu


def on_cpu() -> bool:
    """Tell whether MLX computes on the CPU by default, at this moment; asked at every step."""
    return mx.default_device().type is _CPU_TYPE
