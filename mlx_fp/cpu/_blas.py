"""Give MLX a fast BLAS on Linux CPUs, where its wheel brings the reference one.

`bind` points the BLAS and LAPACK functions that libmlx.so imports at OpenBLAS (the package scipy-openblas32).
It writes into libmlx's own import slots and nowhere else, checks a product and a singular value decomposition
through MLX, and puts the slots back on any doubt. On macOS and on a GPU it does nothing.

The environment variable MLX_FP_BLAS says otherwise: `off`, or the path of another library.
"""

from __future__ import annotations

import ctypes
import functools
import glob
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

__all__ = ["BlasInfo", "bind", "blas", "set_threads", "threads"]

_BLAS = re.compile(rb"cblas_\w+|[sdcz][a-z0-9]{3,6}_")  # cblas_sgemm, and LAPACK by its Fortran names: sgesdd_
_FAST = re.compile(r"openblas|mkl|blis|armpl|nvpl|atlas|flexiblas", re.IGNORECASE)
_MISSING = (
    "MLX runs on the reference BLAS of its Linux wheel, in which a large matrix product is 30 to 40 times slower: "
    "install the fast one with pip install 'mlx-fp[cpu]' (it brings scipy-openblas32), or set MLX_FP_BLAS=off to "
    "keep this one without a warning"
)
_FOUND = (
    "scipy-openblas32 is installed, and far faster than the BLAS of MLX's Linux wheel",
    "reinstall it with pip install --force-reinstall scipy-openblas32",
)
_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"
_CHOSEN = ("MLX_FP_BLAS names this library", "correct or unset MLX_FP_BLAS")
_SET_THREADS = ("scipy_openblas_set_num_threads", "openblas_set_num_threads", "MKL_Set_Num_Threads")
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class BlasInfo:
    """Say which BLAS MLX uses on the CPU: its library, its threads, the functions bound to it, and why.

    `threads` is how many it was bound with, None where it does not tell; `bound` is empty where nothing was.

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
    """MLX, its library, the slots of each BLAS function that it imports, and what they point at to begin with."""

    mx: ModuleType
    lib: _elf.Image
    slots: Mapping[str, tuple[int, ...]]
    stock: str


def bind() -> BlasInfo:
    """Bind MLX to a fast BLAS, once per process; later calls return the same answer.

    It raises nothing for what the machine lacks: a RuntimeWarning says, once, what is wrong and what to do.
    """
    with _LOCK:
        first = not _settled.cache_info().currsize
        found, doubt = _settled()
    if first and doubt:
        warnings.warn(doubt, RuntimeWarning, stacklevel=2)
    return found


def blas() -> BlasInfo:
    """Return which BLAS MLX uses and why, binding first where nothing has yet."""
    return bind()


def threads() -> int | None:
    """Return the number of threads of the bound BLAS at this moment, None where that cannot be told."""
    library = _bound()
    return None if library is None else _threads(library)


def set_threads(count: int) -> int | None:
    """Set the number of threads of the bound BLAS for the process, and return what it was.

    None, and nothing is changed, where no BLAS is bound or the bound one has no such function.
    """
    library, before = _bound(), threads()
    at = 0 if library is None else _elf.address(library, *_SET_THREADS)
    if before is None or not at:
        return None
    ctypes.CFUNCTYPE(None, ctypes.c_int)(at)(count)
    return before


def _bound() -> ctypes.CDLL | None:
    return ctypes.CDLL(found.library) if (found := bind()).bound else None


@functools.cache
def _settled() -> tuple[BlasInfo, str]:
    """Return what was done and the warning that it deserves, or an empty one."""
    if _elf.HERE.startswith("darwin"):
        return _left("Accelerate", "MLX uses Apple's Accelerate on macOS"), ""
    if _elf.HERE not in _elf.KNOWN:
        return _left("MLX's own", f"there is nothing to bind on {_elf.HERE}"), ""
    try:
        import mlx.core as mx
    except ImportError:
        return _left("none", "MLX is not installed"), ""
    if mx.default_device().type == mx.DeviceType.gpu:
        return _left("MLX's own", "MLX computes on the GPU"), ""
    return _on_linux(mx)


def _on_linux(mx: ModuleType) -> tuple[BlasInfo, str]:
    if (here := _target(mx)) is None:
        return _left("MLX's own", "this build of MLX has no libmlx.so that imports a BLAS"), ""
    choice = os.environ.get("MLX_FP_BLAS", "").strip()
    if choice.lower() == "off":
        return _left(here.stock, "MLX_FP_BLAS=off"), ""
    if not choice and _FAST.search("/".join(os.path.realpath(here.stock).split(os.sep)[-2:])):
        return _left(here.stock, "this build of MLX already has a fast BLAS"), ""
    if not (path := os.path.expanduser(choice) or _packaged()):
        return _left(here.stock, "scipy-openblas32 is not installed"), _MISSING
    return _attempt(here, path, bool(choice))


def _target(mx: ModuleType) -> _Target | None:
    lib = _elf.image("libmlx.so")
    slots = _elf.imports(lib, _BLAS) if lib else {}
    if lib is None or "cblas_sgemm" not in slots:
        return None
    return _Target(mx, lib, slots, _stock(lib, slots["cblas_sgemm"][0]))


def _attempt(here: _Target, path: str, chosen: bool) -> tuple[BlasInfo, str]:
    why, remedy = _CHOSEN if chosen else _FOUND
    try:
        return _rebound(here, path, why), ""
    except Exception as error:
        reason = f"{path} was not bound: {error}"
        doubt = f"MLX keeps its stock BLAS: {reason}; {remedy}, or set MLX_FP_BLAS=off"
        return _left(here.stock, reason), doubt


def _rebound(here: _Target, path: str, why: str) -> BlasInfo:
    """Bind, check, and undo on any doubt.

    OSError: the library cannot be loaded, or libmlx's slots cannot be written. LookupError: functions are missing.
    ArithmeticError: wrong numbers came out of MLX.
    """
    library = _loaded(path)
    pointers = _pointers(library, here.slots)
    writes = {slot: pointer for name, pointer in pointers.items() for slot in here.slots[name]}
    before = _elf.write(here.lib, writes)
    try:
        check(here.mx)
    except BaseException:
        _elf.write(here.lib, before)
        raise
    file = _elf.owner(pointers["cblas_sgemm"]) or path
    return BlasInfo(file, _threads(library), tuple(sorted(pointers)), why)


def _loaded(path: str) -> ctypes.CDLL:
    """Load a library whose idle threads sleep soon, unless the environment says otherwise; put the environment back.

    OpenBLAS reads the variable as it is loaded. Threads that spin instead slow down torch in the same process.
    """
    asked = _TIMEOUT in os.environ
    os.environ.setdefault(_TIMEOUT, "10")
    try:
        return ctypes.CDLL(path, mode=os.RTLD_LOCAL | os.RTLD_NOW)
    finally:
        if not asked:
            os.environ.pop(_TIMEOUT, None)


def _pointers(library: ctypes.CDLL, names: Iterable[str]) -> dict[str, int]:
    """Return the address of every cblas function asked for, and of the LAPACK functions that the library has.

    BLAS is bound whole or not at all. LAPACK functions stand each for itself: the ABI and the formats of what they
    exchange (factors, pivots) are standard, so those that are missing stay MLX's own.
    """
    found = {name: address for name in names if (address := _elf.address(library, f"scipy_{name}", name))}
    missing = sorted(name for name in names if name.startswith("cblas_") and name not in found)
    if _elf.address(library, "scipy_cblas_sgemm64_", "cblas_sgemm64_") or "USE64BITINT" in _config(library):
        raise LookupError("it is built for 64-bit integers, where MLX passes 32-bit ones")
    if missing:
        raise LookupError(f"it lacks {', '.join(missing)}")
    return found


def _config(library: ctypes.CDLL) -> str:
    at = _elf.address(library, "scipy_openblas_get_config", "openblas_get_config")
    return (ctypes.CFUNCTYPE(ctypes.c_char_p)(at)() or b"").decode(errors="replace") if at else ""


def _threads(library: ctypes.CDLL) -> int | None:
    at = _elf.address(library, "scipy_openblas_get_num_threads", "openblas_get_num_threads")
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(at)()) if at else None


def _stock(lib: _elf.Image, slot: int) -> str:
    """Return the file of the BLAS that MLX came with: where its slot points, or would at the first call."""
    held = _elf.owner(_elf.read(slot))
    if held == lib.file:  # not called yet: look it up as the linker will, globally first, then from libmlx on
        scopes = (ctypes.CDLL(scope, mode=os.RTLD_NOLOAD | os.RTLD_NOW) for scope in (None, lib.file))
        held = next((_elf.owner(at) for library in scopes if (at := _elf.address(library, "cblas_sgemm"))), held)
    return "netlib (bundled with mlx)" if re.search(r"/mlx[^/]*\.libs/libblas", held) else held


def _packaged() -> str:
    """Return the library in the package scipy-openblas32, or "". Importing it would load it for the whole process."""
    with suppress(ValueError):  # what find_spec raises for a half-made module
        spec = importlib.util.find_spec("scipy_openblas32")
        roots = (spec.submodule_search_locations if spec else None) or ()
        found = (so for root in roots for so in sorted(glob.glob(os.path.join(root, "lib", "libscipy_openblas*.so*"))))
        return str(next(found, ""))
    return ""


def _left(library: str, reason: str) -> BlasInfo:
    return BlasInfo(library, threads=None, bound=(), reason=reason)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
