"""Compute large matrix products in blocks on all cores, and everything else of the BLAS on one core.

The threads of a BLAS spin while they wait for each other. On a busy machine, where each thread runs only now and then,
a small product takes 20 times as long. On a quiet machine, waking a thread takes longer than a small product. So the
BLAS gets one thread. The functions in `products.c` share the blocks of a product of a fifth of a millisecond or more
among threads that never spin.
"""

from __future__ import annotations

import ctypes
import os

from . import _elf
from ._cores import allowed_cores
from ._functions import functions

__all__ = ["in_blocks", "set_threads", "threads"]

_GET = ("scipy_openblas_get_num_threads", "openblas_get_num_threads")
_SET = ("scipy_openblas_set_num_threads", "openblas_set_num_threads", "MKL_Set_Num_Threads")
_ASKED = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
_in_blocks: list[ctypes.CDLL] = []
"""The functions in C, once products are computed in blocks."""


def in_blocks(library: ctypes.CDLL, product: int) -> tuple[int, str]:
    """Let an OpenBLAS compute with one thread; return a product in blocks over its product.

    Args:
        library: The OpenBLAS.
        product: The address of its `cblas_sgemm`.

    Returns:
        The address of the product in blocks, and "". If that is not possible, `product`, and the reason.
    """
    count, built = threads(library), functions()
    if count is None:
        return product, "it is no OpenBLAS"
    if isinstance(built, str):
        return product, built
    ours, _ = built
    ours.mlx_fp_set_product(ctypes.c_void_p(product))
    set_threads(library, 1)
    _in_blocks[:] = [ours]
    ours.mlx_fp_set_threads(count if any(map(os.environ.get, _ASKED)) else min(count, allowed_cores()))
    return _elf.address(ours, "mlx_fp_sgemm"), ""


def threads(library: ctypes.CDLL) -> int | None:
    """Return the number of threads that compute a product, None if the library does not tell it."""
    if _in_blocks:
        return int(_in_blocks[0].mlx_fp_threads())
    getter = _elf.address(library, *_GET)
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(getter)()) if getter else None


def set_threads(library: ctypes.CDLL, count: int) -> int | None:
    """Set the number of threads that compute a product, and return the previous number.

    None, and nothing is changed, if the library has no such function.
    """
    before = threads(library)
    setter = _elf.address(_in_blocks[0], "mlx_fp_set_threads") if _in_blocks else _elf.address(library, *_SET)
    if before is None or not setter:
        return None
    ctypes.CFUNCTYPE(None, ctypes.c_int)(setter)(count)
    return before
