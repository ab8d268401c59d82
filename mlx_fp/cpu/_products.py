"""Compute large matrix products in blocks on all cores, and everything else of the BLAS on one core.

The threads of a BLAS spin while they wait for each other. On a busy machine, where each thread runs only now and then,
a small product takes 20 times as long. On a quiet machine, waking a thread takes longer than a small product. So the
BLAS gets one thread. The functions in `products.c` share the blocks of a product of 0.15 milliseconds or more
among threads that sleep while they have none.
"""

from __future__ import annotations

import ctypes
import os

from . import _elf
from ._cores import allowed_cores
from ._functions import functions

__all__ = ["in_blocks"]

_GET = ("scipy_openblas_get_num_threads", "openblas_get_num_threads")
_SET = ("scipy_openblas_set_num_threads", "openblas_set_num_threads")
_ASKED = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")


def in_blocks(library: ctypes.CDLL, product: int) -> tuple[int, int | None, str]:
    """Let an OpenBLAS compute with one thread; return a product in blocks over its product.

    Args:
        library: The OpenBLAS.
        product: The address of its `cblas_sgemm`.

    Returns:
        The address of the product in blocks, its number of threads, and "". If that is not possible, `product`, the
        number of threads of the library where it tells it, and the reason.
    """
    getter, setter = _elf.address(library, *_GET), _elf.address(library, *_SET)
    if not (getter and setter):
        return product, None, "it is no OpenBLAS"
    count, built = int(ctypes.CFUNCTYPE(ctypes.c_int)(getter)()), functions()
    if isinstance(built, str):
        return product, count, built
    ours, _ = built
    count = count if any(map(os.environ.get, _ASKED)) else min(count, allowed_cores())
    ours.mlx_fp_set_product(ctypes.c_void_p(product))
    ours.mlx_fp_set_threads(count)
    ctypes.CFUNCTYPE(None, ctypes.c_int)(setter)(1)
    return _elf.address(ours, "mlx_fp_sgemm"), count, ""
