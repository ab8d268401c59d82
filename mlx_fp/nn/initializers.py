"""The initialisers of mlx.nn: `fn = glorot_uniform()`, then `fn(array) -> array` of the same shape and dtype.

They draw from the random stream of the moment, which `nn.init(key)` installs.
"""

from mlx.nn.init import (
    constant,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    identity,
    normal,
    orthogonal,
    sparse,
    uniform,
)

__all__ = [
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "normal",
    "orthogonal",
    "sparse",
    "uniform",
]
