"""The sizes from which on a CPU wants something computed in another way. Each was measured; the unit is in the name."""

from __future__ import annotations

__all__ = [
    "CACHED_MODELS",
    "CACHED_MODELS_FUSED",
    "DEFAULT_CACHE_BYTES",
    "GROUPED_ELEMENTS",
    "GROUPED_LEAVES",
    "MIDDLE_BYTES",
    "SEPARATE_ELEMENTS",
    "TUNED_CACHE_BYTES",
    "UNROLLED_ELEMENTS",
    "WAIT_BYTES",
]

GROUPED_ELEMENTS = 4096
"""A leaf of at most so many elements is computed faster together with others than by itself."""

GROUPED_LEAVES = 32
"""At most so many leaves are concatenated: MLX's cost for an array of parts grows with the square of their number."""

SEPARATE_ELEMENTS = 1 << 18
"""From so many elements on, allocating an array costs more than launching another kernel."""

UNROLLED_ELEMENTS = 1 << 17
"""Up to so many elements of parameters, several steps in one compiled call were measured to be faster."""

WAIT_BYTES = 32 << 20
"""From so many bytes of parameters on, gradients are evaluated before the update, to bound peak memory."""

MIDDLE_BYTES = 8 << 20
"""From so many bytes of parameters on, packing gains nothing, and a step frees more memory than MLX keeps."""

DEFAULT_CACHE_BYTES = 32 << 20
"""The bytes of freed memory that MLX's CPU build keeps by default."""

TUNED_CACHE_BYTES = 1 << 30
"""The bytes of freed memory that MLX keeps in a tuned context for a model of unknown size."""

CACHED_MODELS = 3
"""Freed memory that a large step needs anew, in units of its parameters: gradients and two moments."""

CACHED_MODELS_FUSED = 4
"""The same where fused kernels write the parameters anew, too."""
