"""Bind MLX to a fast BLAS on Linux CPUs. The wheel of MLX brings the slow reference BLAS.

`blas` points the BLAS and LAPACK functions that libmlx.so imports at OpenBLAS (the package scipy-openblas32).
It writes only into the import slots of libmlx.so. Then it checks a product and a singular value decomposition through
MLX, and restores the slots if the check fails. On macOS and on a GPU it does nothing.

The environment variable MLX_FP_BLAS changes this: `off`, or a path, for example `/opt/lib/libopenblas.so`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import threading
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType

from . import _elf
from ._blas_check import check
from ._products import in_blocks

__all__ = ["BlasInfo", "blas"]

_BLAS = re.compile(rb"cblas_\w+|[sdcz][a-z0-9]{3,6}_")  # for example cblas_sgemm, and of LAPACK sgesdd_ (Fortran names)
_FAST = re.compile(r"openblas|mkl|blis|armpl|nvpl|atlas|flexiblas", re.IGNORECASE)
_MISSING = (
    "MLX computes with the reference BLAS of its Linux wheel, in which a large matrix product takes 30 to 40 times as "
    "long: install a fast BLAS with pip install scipy-openblas32 (the extra `cpu` brings it), or set MLX_FP_BLAS=off "
    "to keep the reference BLAS without this warning"
)
_FOUND = (
    "scipy-openblas32 is installed, and is much faster than the BLAS of MLX's Linux wheel",
    "reinstall it with pip install --force-reinstall scipy-openblas32",
)
_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"
_CHOSEN = ("MLX_FP_BLAS names this library", "correct or unset MLX_FP_BLAS")
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class BlasInfo:
    """Describe the BLAS that MLX uses on the CPU.

    Args:
        library: The file of the library, or a description of it.
        threads: The number of threads of a large product when it was bound, None if the library does not tell it.
        bound: The names of the functions of MLX that were bound to it; empty if none were.
        reason: Why MLX uses this library.

    >>> print(BlasInfo("libfoo.so", 2, ("cblas_sgemm",), "an example"))
    libfoo.so, 2 threads, 1 function bound: an example
    """

    library: str
    threads: int | None
    bound: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        threads = () if self.threads is None else (_count(self.threads, "thread"),)
        parts = (self.library, *threads, f"{_count(len(self.bound), 'function')} bound")
        return f"{', '.join(parts)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class _Target:
    """MLX, the loaded libmlx.so, its import slots by BLAS or LAPACK function, and the file of its stock BLAS."""

    mx: ModuleType
    lib: _elf.Image
    slots: Mapping[str, tuple[int, ...]]
    stock: str


def blas() -> BlasInfo:
    """Return which BLAS MLX uses, and why. The first call of the process binds MLX to a fast BLAS.

    A machine without a fast BLAS is no error: a RuntimeWarning gives, once, the reason and the remedy.
    """
    with _LOCK:
        first = not _settled.cache_info().currsize
        info, warning = _settled()
    if first and warning:
        warnings.warn(warning, RuntimeWarning, stacklevel=2)
    return info


@functools.cache
def _settled() -> tuple[BlasInfo, str]:
    """Bind MLX, and return the result and a warning; the warning is empty if nothing is wrong."""
    if _elf.HERE.startswith("darwin"):
        return _unbound("Accelerate", "MLX uses Apple's Accelerate on macOS"), ""
    if _elf.HERE not in _elf.KNOWN:
        return _unbound("MLX's own", f"there is nothing to bind on {_elf.HERE}"), ""
    try:
        import mlx.core as mx
    except ImportError:
        return _unbound("none", "MLX is not installed"), ""
    if mx.default_device().type == mx.DeviceType.gpu:
        return _unbound("MLX's own", "MLX computes on the GPU"), ""
    return _on_linux(mx)


def _on_linux(mx: ModuleType) -> tuple[BlasInfo, str]:
    """Bind MLX to the library that the environment or the package names; return the result and a warning."""
    if (target := _target(mx)) is None:
        return _unbound("MLX's own", "this build of MLX has no libmlx.so that imports a BLAS"), ""
    choice = os.environ.get("MLX_FP_BLAS", "").strip()
    if choice.lower() == "off":
        return _unbound(target.stock, "MLX_FP_BLAS=off"), ""
    if not choice and _FAST.search("/".join(os.path.realpath(target.stock).split(os.sep)[-2:])):
        return _unbound(target.stock, "this build of MLX already has a fast BLAS"), ""
    if not (path := os.path.expanduser(choice) or _packaged()):
        return _unbound(target.stock, "scipy-openblas32 is not installed"), _MISSING
    return _attempt(target, path, bool(choice))


def _target(mx: ModuleType) -> _Target | None:
    """Return the loaded libmlx.so with its slots, None if it is not loaded or imports no BLAS."""
    lib = _elf.image("libmlx.so")
    slots = _elf.imports(lib, _BLAS) if lib else {}
    if lib is None or "cblas_sgemm" not in slots:
        return None
    return _Target(mx, lib, slots, _stock(lib, slots["cblas_sgemm"][0]))


def _attempt(target: _Target, path: str, chosen: bool) -> tuple[BlasInfo, str]:
    """Try to bind a library. A failure is a warning with a remedy, and MLX keeps its stock BLAS."""
    reason, remedy = _CHOSEN if chosen else _FOUND
    try:
        return _rebound(target, path, reason), ""
    except Exception as error:
        failure = f"{path} was not bound: {error}"
        warning = f"MLX keeps its stock BLAS: {failure}; {remedy}, or set MLX_FP_BLAS=off"
        return _unbound(target.stock, failure), warning


def _rebound(target: _Target, path: str, reason: str) -> BlasInfo:
    """Bind a library and check it; after a failed check the slots are restored.

    OSError: the library cannot be loaded, or the slots cannot be written. LookupError: it lacks functions.
    ArithmeticError: MLX computes wrong numbers with it.
    """
    library = _loaded(path)
    pointers = _pointers(library, target.slots)
    file = _elf.owner(pointers["cblas_sgemm"]) or path
    pointers["cblas_sgemm"], threads, obstacle = in_blocks(library, pointers["cblas_sgemm"])
    writes = {slot: pointer for name, pointer in pointers.items() for slot in target.slots[name]}
    before = _elf.write(target.lib, writes)
    try:
        check(target.mx)
    except BaseException:
        _elf.write(target.lib, before)
        raise
    reason += f"; its own threads compute products, because {obstacle}" if obstacle else ""
    return BlasInfo(file, threads, tuple(sorted(pointers)), reason)


def _loaded(path: str) -> ctypes.CDLL:
    """Load a library and make its idle threads sleep soon, unless the environment sets a timeout.

    OpenBLAS reads the variable while it is loaded; afterwards the environment is restored. Idle threads that spin
    would slow down torch in the same process.
    """
    is_set = _TIMEOUT in os.environ
    os.environ.setdefault(_TIMEOUT, "10")
    try:
        return ctypes.CDLL(path, mode=os.RTLD_LOCAL | os.RTLD_NOW)
    finally:
        if not is_set:
            os.environ.pop(_TIMEOUT, None)


def _pointers(library: ctypes.CDLL, names: Iterable[str]) -> dict[str, int]:
    """Return the address of each named BLAS function, and of each named LAPACK function that the library has.

    BLAS is bound completely or not at all. LAPACK functions are bound one by one, and MLX keeps its own for those that
    the library lacks. That is safe, because the ABI and the formats of their results (factors, pivots) are standard.
    """
    addresses = {name: address for name in names if (address := _elf.address(library, f"scipy_{name}", name))}
    missing = sorted(name for name in names if name.startswith("cblas_") and name not in addresses)
    if _elf.address(library, "scipy_cblas_sgemm64_", "cblas_sgemm64_") or "USE64BITINT" in _config(library):
        raise LookupError("it is built for 64-bit integers, and MLX passes 32-bit integers")
    if missing:
        raise LookupError(f"it lacks {', '.join(missing)}")
    return addresses


def _config(library: ctypes.CDLL) -> str:
    """Return OpenBLAS's description of its build, "" for other libraries."""
    getter = _elf.address(library, "scipy_openblas_get_config", "openblas_get_config")
    return (ctypes.CFUNCTYPE(ctypes.c_char_p)(getter)() or b"").decode(errors="replace") if getter else ""


def _stock(lib: _elf.Image, slot: int) -> str:
    """Return the file of the BLAS that MLX came with. Its slot points into that file after the first call."""
    file = _elf.owner(_elf.read(slot))
    if file == lib.file:  # before the first call: search as the linker will, first globally, then from libmlx.so on
        scopes = (ctypes.CDLL(scope, mode=os.RTLD_NOLOAD | os.RTLD_NOW) for scope in (None, lib.file))
        files = (_elf.owner(function) for library in scopes if (function := _elf.address(library, "cblas_sgemm")))
        file = next(files, file)
    return "netlib (bundled with mlx)" if re.search(r"/mlx[^/]*\.libs/libblas", file) else file


def _packaged() -> str:
    """Return the file of the library in scipy-openblas32, or "". An import would load it for the whole process."""
    with suppress(ValueError, OSError):  # find_spec raises ValueError for a module without a spec
        spec = importlib.util.find_spec("scipy_openblas32")
        roots = (spec.submodule_search_locations if spec else None) or ()
        folders = (os.path.join(root, "lib") for root in roots)
        files = (os.path.join(folder, name) for folder in folders for name in sorted(os.listdir(folder)))
        return next((file for file in files if re.search(r"/libscipy_openblas[^/]*\.so", file)), "")
    return ""


def _unbound(library: str, reason: str) -> BlasInfo:
    """Return the result for an MLX that keeps its stock BLAS."""
    return BlasInfo(library, threads=None, bound=(), reason=reason)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
