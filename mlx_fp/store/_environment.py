"""Describe the machine and the software of this process, for the record of a run."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["environment"]

_VECTOR_FLAGS = re.compile(r"\b(?:avx|fma|f16c|amx|asimd|sve)\w*")


def environment() -> dict[str, str | None]:
    """Return the versions, Python, platform, processor, device, BLAS and kernels of this process.

    >>> environment()["python"] == platform.python_version()
    True
    """
    packages = {name.replace("-", "_"): _version(name) for name in ("mlx-fp", "mlx")}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor()}
    return {**packages, **machine, **_device()}


@cache
def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # a late import: it loads 80 modules

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> dict[str, str | None]:
    """Return the names of the device and of the libraries that compute on it."""
    from ..core._mlx import mx
    from ..core.backend import device_backend

    try:
        device = str(mx.default_device().type).removeprefix("DeviceType.")
    except ImportError:  # MLX is not installed
        return {"device": None, "blas": None, "kernels": None}
    return {"device": device, "blas": None, "kernels": None, **device_backend().facts()}


@cache
def _processor() -> str:
    """Return the type of the processor and its vector instructions. The bits of results depend on both."""
    info: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            info.setdefault(name.strip(), value.strip())
    arm = " ".join(info[name] for name in ("CPU implementer", "CPU part") if name in info)
    vectors = _VECTOR_FLAGS.findall(info.get("flags") or info.get("Features") or "")
    return " ".join([info.get("model name") or arm or platform.processor() or platform.machine(), *sorted(vectors)])
