"""Native kernels: let MLX build kernels for this processor, by a call or by an environment variable."""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import dataclass

__all__ = ["KernelInfo", "enable_from_environment", "is_native", "kernels", "native"]

_LOCK = threading.Lock()
_folders: list[str] = []
"""The folder of native kernels, once they are enabled; they stay enabled until the process ends."""


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """Describe how MLX builds the CPU kernels of compiled functions.

    Args:
        native: whether MLX builds kernels for this processor.
        flags: the flags that are added to MLX's own; empty for stock kernels.
        folder: the folder of the kernels; "" for stock kernels, which MLX keeps in the folder for temporary files.

    >>> print(KernelInfo(True, ("-march=native",), "kernels"))
    for the processor at hand, with -march=native, kept in kernels
    """

    native: bool
    flags: tuple[str, ...] = ()
    folder: str = ""

    def __str__(self) -> str:
        if not self.native:
            return "as MLX came, for the oldest processor of the architecture, kept in the folder for temporary files"
        return f"for the processor at hand, with {' '.join(self.flags)}, kept in {self.folder}"


def native() -> KernelInfo:
    """Let MLX build its CPU kernels for this processor, from now on and in this process.

    Elementwise operations become up to twenty times faster, and the last bits of results change. Kernels that the
    process has built already stay as they are, so call it first. MLX_FP_JIT=native does the same without a call. For
    example, `MLX_FP_JIT=native python train.py`.

    Returns:
        How MLX builds kernels now.

    Raises:
        RuntimeError: The machine is not a Linux CPU with `g++`; the message gives the reason.
    """
    with _LOCK:
        if not _folders:
            from ._kernels import patch_compiler

            try:
                _folders.append(str(patch_compiler()))
            except OSError as error:
                told = f"the folder for kernels cannot be used: {error}; XDG_CACHE_HOME names another place"
                raise RuntimeError(told) from error
    return kernels()


def kernels() -> KernelInfo:
    """Return how MLX builds CPU kernels in this process.

    >>> isinstance(kernels().native, bool)
    True
    """
    if not is_native():
        return KernelInfo(False)
    from ._kernels import FLAGS

    return KernelInfo(True, FLAGS, _folders[0])


def is_native() -> bool:
    """Tell whether MLX builds its CPU kernels for this processor."""
    return bool(_folders)


def enable_from_environment() -> None:
    """Call `native` if MLX_FP_JIT=native is set. If that fails, a RuntimeWarning gives the reason."""
    choice = os.environ.get("MLX_FP_JIT", "").strip().lower()
    if choice in ("", "off"):
        return
    try:
        if choice != "native":
            from ..core._errors import unknown

            raise RuntimeError(unknown("choice", choice, ["native", "off"]))
        native()
    except RuntimeError as error:
        message = f"MLX_FP_JIT={choice} has no effect, and MLX builds its stock kernels: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
