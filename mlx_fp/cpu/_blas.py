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
from typing import Any

from . import _elf

__all__ = ["Info", "bind", "info", "single"]

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
_CHOSEN = ("MLX_FP_BLAS names this library", "correct or unset MLX_FP_BLAS")
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Info:
    """Say which BLAS MLX uses on the CPU: its library, its threads, the functions bound to it, and why.

    `threads` is how many it was bound with, None where it does not tell; `bound` is empty where nothing was.

    >>> print(Info("libfoo.so", 2, ("cblas_sgemm",), "an example"))
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


def bind() -> Info:
    """Bind MLX to a fast BLAS, once per process; later calls return the same answer.

    It raises nothing for what the machine lacks: a RuntimeWarning says, once, what is wrong and what to do.
    """
    with _LOCK:
        first = not _settled.cache_info().currsize
        found, doubt = _settled()
    if first and doubt:
        warnings.warn(doubt, RuntimeWarning, stacklevel=2)
    return found


def info() -> Info:
    """Return which BLAS MLX uses and why, binding first where nothing has yet."""
    return bind()


@functools.cache
def single() -> None:
    """Leave the bound BLAS one thread from now on: side by side, products of several threads wait for each other."""
    names = "scipy_openblas_set_num_threads", "openblas_set_num_threads", "MKL_Set_Num_Threads"
    at = _elf.address(ctypes.CDLL(bind().library), *names) if bind().bound else 0
    if at:
        ctypes.CFUNCTYPE(None, ctypes.c_int)(at)(1)


@functools.cache
def _settled() -> tuple[Info, str]:
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


def _on_linux(mx: ModuleType) -> tuple[Info, str]:
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


def _attempt(here: _Target, path: str, chosen: bool) -> tuple[Info, str]:
    why, remedy = _CHOSEN if chosen else _FOUND
    try:
        return _rebound(here, path, why), ""
    except Exception as error:
        reason = f"{path} was not bound: {error}"
        doubt = f"MLX keeps its stock BLAS: {reason}; {remedy}, or set MLX_FP_BLAS=off"
        return _left(here.stock, reason), doubt


def _rebound(here: _Target, path: str, why: str) -> Info:
    """Bind, check, and undo on any doubt.

    OSError: the library cannot be loaded, or libmlx's slots cannot be written. LookupError: functions are missing.
    ArithmeticError: wrong numbers came out of MLX.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")  # else its idle threads spin and slow down torch
    library = ctypes.CDLL(path, mode=os.RTLD_LOCAL | os.RTLD_NOW)
    pointers = _pointers(library, here.slots)
    writes = {slot: pointer for name, pointer in pointers.items() for slot in here.slots[name]}
    before = _elf.write(here.lib, writes)
    try:
        _check(here.mx)
    except BaseException:
        _elf.write(here.lib, before)
        raise
    file = _elf.owner(pointers["cblas_sgemm"]) or path
    return Info(file, _threads(library), tuple(sorted(pointers)), why)


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


def _check(mx: ModuleType) -> None:
    """Raise ArithmeticError unless MLX gets known answers right on the CPU.

    It runs in a thread of its own: MLX's streams belong to the thread that uses them, and one started here, while
    the library is being imported, would hang a process forked later. The caller gets its stream first, as exported
    functions look for the stream of the first number.
    """
    mx.default_stream(mx.cpu)
    verdict: list[bool] = []
    worker = threading.Thread(target=lambda: verdict.append(_right(mx)), name="mlx_fp.blas check")
    worker.start()
    worker.join()
    if verdict != [True]:
        raise ArithmeticError("MLX computes a known product or SVD wrongly with it")


def _right(mx: ModuleType) -> bool:
    kinds = ((mx.float32, 1), (mx.float64, 1), (mx.complex64, 1j))
    with suppress(Exception), mx.stream(mx.cpu):
        verdicts = (verdict(mx, *kind) for kind in kinds for verdict in (_product, _svd))
        return bool(mx.stack([*verdicts]).all())  # one evaluation: to wake MLX's thread takes longer than all of it
    return False


def _product(mx: ModuleType, dtype: object, unit: complex) -> Any:
    """Tell whether sum_k (i + k)(j - k) = n i j + (j - i) sum k - sum k^2, exact in float32, plain and transposed."""
    n = 8  # small, for one thread: more of a library just loaded may take 10 ms to find a core
    i, j, k = mx.arange(12)[:, None], mx.arange(20)[None, :], mx.arange(n)
    left, right = ((x.astype(dtype) * unit) for x in (i + k[None, :], j - k[:, None]))
    known = (n * i * j + (j - i) * k.sum() - (k * k).sum()).astype(dtype) * (unit * unit)
    return mx.array_equal(left @ right, known) & mx.array_equal(right.T @ left.T, known.T)


def _svd(mx: ModuleType, dtype: object, unit: complex) -> Any:
    """Tell whether [[3, 0], [4, 5]] has singular values 3 sqrt(5), sqrt(5), and its factors multiply back."""
    matrix = mx.array([[3, 0], [4, 5]]).astype(dtype) * unit
    u, s, vt = mx.linalg.svd(matrix)
    known = mx.array([3 * 5**0.5, 5**0.5])
    return (mx.abs(s - known).max() < 1e-4) & (mx.abs((u * s) @ vt - matrix).max() < 1e-4)


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


def _left(library: str, reason: str) -> Info:
    return Info(library, threads=None, bound=(), reason=reason)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
