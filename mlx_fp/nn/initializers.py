"""The initialisers of mlx.nn.

For example, `fill = glorot_uniform()` makes a function `fill(array) -> array` that returns an array of the same shape
and dtype. Random initialisers draw from the stream that `nn.init(key)` installs.
"""

from ..core._mlx import mlx_nn

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

constant = mlx_nn.init.constant
glorot_normal = mlx_nn.init.glorot_normal
glorot_uniform = mlx_nn.init.glorot_uniform
he_normal = mlx_nn.init.he_normal
he_uniform = mlx_nn.init.he_uniform
identity = mlx_nn.init.identity
normal = mlx_nn.init.normal
orthogonal = mlx_nn.init.orthogonal
sparse = mlx_nn.init.sparse
uniform = mlx_nn.init.uniform
