"""Whether MLX builds its CPU kernels for the processor at hand: asked for by a call, or by the environment."""

from __future__ import annotations

import os
import threading
import warnings

__all__ = ["engage", "engaged", "obey"]

_LOCK = threading.Lock()
_engaged: list[str] = []


def engage() -> str:
    """See to it once per process; return the folder of kernels. RuntimeError with the reason where that cannot be."""
    with _LOCK:
        if not _engaged:
            from ._kernels import replace

            _engaged.append(str(replace()))
        return _engaged[0]


def engaged() -> str | None:
    """Return the folder of kernels, None where MLX builds them as it came."""
    return _engaged[0] if _engaged else None


def obey() -> None:
    """See to it if MLX_FP_JIT=native says so; a RuntimeWarning tells why where that cannot be."""
    choice = os.environ.get("MLX_FP_JIT", "").strip().lower()
    if choice in ("", "off"):
        return
    try:
        if choice != "native":
            from ..core._errors import unknown

            raise RuntimeError(unknown("choice", choice, ["native", "off"]))
        engage()
    except RuntimeError as error:
        told = f"MLX_FP_JIT={choice} has no effect, and MLX builds its kernels as it came: {error}"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
