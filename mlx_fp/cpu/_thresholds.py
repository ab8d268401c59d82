"""The sizes at which a CPU computes something in another way. Each was measured; the name contains the unit."""

from __future__ import annotations

__all__ = [
    "CACHED_MODELS",
    "CACHED_MODELS_FUSED",
    "DEFAULT_CACHE_BYTES",
    "GROUPED_ELEMENTS",
    "GROUPED_LEAVES",
    "MIDDLE_BYTES",
    "SEPARATE_ELEMENTS",
    "THROTTLED_BYTES",
    "TUNED_CACHE_BYTES",
    "UNROLLED_ELEMENTS",
    "WAIT_BYTES",
]

GROUPED_ELEMENTS = 4096
"""Maximum elements of a leaf that is computed faster in a group than alone."""

GROUPED_LEAVES = 32
"""Maximum leaves in a group. MLX's cost for a concatenated array grows with the square of the number of its parts."""

SEPARATE_ELEMENTS = 1 << 18
"""Minimum elements of an array for which an allocation costs more than the launch of another kernel."""

UNROLLED_ELEMENTS = 1 << 17
"""Maximum elements of all parameters for which several steps in one compiled call were measured to be faster."""

THROTTLED_BYTES = 1 << 18
"""Minimum bytes of the arguments of a part for which MLX's queue runs empty before it; that takes about 0.1 ms."""

WAIT_BYTES = 32 << 20
"""At this many bytes of trained parameters or more, gradients are evaluated before the update, to bound peak memory."""

MIDDLE_BYTES = 8 << 20
"""At this many bytes of trained parameters or more, packing gains nothing, and a step frees more than MLX keeps."""

DEFAULT_CACHE_BYTES = 32 << 20
"""Bytes of freed memory that MLX's CPU build keeps by default."""

TUNED_CACHE_BYTES = 1 << 30
"""Bytes of freed memory that MLX keeps within `tuned` for a model of unknown size."""

CACHED_MODELS = 3
"""Freed memory that a large step allocates again, in units of its trained parameters: gradients and two moments."""

CACHED_MODELS_FUSED = 4
"""The same for fused kernels, which write the parameters to new memory, too."""
