"""Check with known answers that MLX computes correctly with the BLAS in use."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import ModuleType
from typing import Any

__all__ = ["check"]


def check(mx: ModuleType) -> None:
    """Raise ArithmeticError unless MLX computes known answers correctly on the CPU.

    The check runs in a thread of its own. MLX's streams belong to the thread that uses them. A stream that the calling
    thread started here, while the library is being imported, would hang a process that is forked later. The calling
    thread gets its default stream first, because exported functions look for the stream with the first number.
    """
    mx.default_stream(mx.cpu)
    verdict: list[bool] = []
    worker = threading.Thread(target=lambda: verdict.append(_is_correct(mx)), name="mlx_fp.blas check")
    worker.start()
    worker.join()
    if verdict != [True]:
        raise ArithmeticError("MLX computes a known product or SVD wrongly with it")


def _is_correct(mx: ModuleType) -> bool:
    """Tell whether products and decompositions are correct in float32, float64 and complex64."""
    kinds = ((mx.float32, 1), (mx.float64, 1), (mx.complex64, 1j))
    with suppress(Exception), mx.stream(mx.cpu):
        verdicts = (verdict(mx, *kind) for kind in kinds for verdict in (_product, _svd))
        return bool(mx.stack([*verdicts]).all())  # one evaluation: waking MLX's thread takes longer than all the sums
    return False


def _product(mx: ModuleType, dtype: object, unit: complex) -> Any:
    """Tell whether sum_k (i + k)(j - k) = n i j + (j - i) sum k - sum k^2, exact in float32, plain and transposed."""
    n = 8  # small enough for one thread: the other threads of a library just loaded may take 10 ms to get a core
    i, j, k = mx.arange(12)[:, None], mx.arange(20)[None, :], mx.arange(n)
    left, right = ((x.astype(dtype) * unit) for x in (i + k[None, :], j - k[:, None]))
    expected = (n * i * j + (j - i) * k.sum() - (k * k).sum()).astype(dtype) * (unit * unit)
    return mx.array_equal(left @ right, expected) & mx.array_equal(right.T @ left.T, expected.T)


def _svd(mx: ModuleType, dtype: object, unit: complex) -> Any:
    """Tell whether [[3, 0], [4, 5]] has singular values 3 sqrt(5), sqrt(5), and its factors multiply back."""
    matrix = mx.array([[3, 0], [4, 5]]).astype(dtype) * unit
    u, s, vt = mx.linalg.svd(matrix)
    expected = mx.array([3 * 5**0.5, 5**0.5])
    return (mx.abs(s - expected).max() < 1e-4) & (mx.abs((u * s) @ vt - matrix).max() < 1e-4)
