"""The door to MLX: every module that touches an array takes `mx` from here.

Passing through it says which extra to install where MLX is missing, gives MLX a fast BLAS on Linux CPUs, and obeys
MLX_FP_JIT.
"""

from __future__ import annotations

import os

from ..cpu import _native
from ..cpu._blas import bind

__all__ = ["PROCESS", "mx", "on_cpu", "utils"]

PROCESS = os.getpid()
"""The process in which MLX was first used here; in a fork of it the threads of MLX are not there."""

try:
    import mlx.core as mx
    from mlx import utils
except ImportError as error:  # no mlx, or the Linux wheel without its backend
    raise ImportError(
        "this part of mlx_fp needs MLX: pip install 'mlx-fp[cpu]' on a Linux CPU, 'mlx-fp[cuda12]' or "
        "'mlx-fp[cuda13]' with an NVIDIA GPU, 'mlx-fp' on macOS"
    ) from error

bind()
_native.obey()


def on_cpu() -> bool:
    """Tell whether MLX computes on the CPU by default, at this moment."""
    return mx.default_device().type == mx.DeviceType.cpu
