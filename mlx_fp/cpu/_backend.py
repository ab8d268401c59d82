"""The two backends for Linux CPUs: one for MLX's stock kernels, one for kernels built for this processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from types import MappingProxyType

from ..core._mlx import mlx_nn
from ..core.backend import Backend
from ._affinity import restore_affinity
from ._blas import blas
from ._composed import MultiHeadAttention, cross_entropy
from ._grouping import grouped, update
from ._in_place import separate_all, separate_large_models
from ._kernel_folder import kernels_in
from ._limits import tuned
from ._linear_vjp import Linear
from ._native import kernels
from ._packing import form
from ._parallel import run_parallel
from ._queue import throttled
from ._thresholds import UNROLLED_ELEMENTS, WAIT_BYTES

__all__ = ["NATIVE", "STOCK"]

_SUBSTITUTES = {mlx_nn.Linear: Linear, mlx_nn.losses.cross_entropy: cross_entropy}

STOCK = Backend(
    name="cpu",
    substitutes=MappingProxyType(_SUBSTITUTES),
    grouped=grouped,
    update=update,
    separate=separate_large_models,
    form=form,
    throttled=throttled,
    waits=lambda parameter_bytes: parameter_bytes >= WAIT_BYTES,
    parallel=run_parallel,
    unrolls=lambda elements: elements <= UNROLLED_ELEMENTS,
    tuned=tuned,
    thread=restore_affinity,
    kernels=lambda: kernels_in(Path(kernels().folder or gettempdir())),
    facts=lambda: {"blas": Path(blas().library).name, "kernels": "as MLX came"},
)
"""For MLX's stock kernels, which MLX compiles for the oldest processor of the architecture."""

NATIVE = replace(
    STOCK,
    name="cpu, native kernels",
    substitutes=MappingProxyType({**_SUBSTITUTES, mlx_nn.MultiHeadAttention: MultiHeadAttention}),
    separate=separate_all,
    facts=lambda: {**STOCK.facts(), "kernels": f"for the processor at hand, {' '.join(kernels().flags)}"},
)
"""For kernels that are built for this processor; see `native`."""
