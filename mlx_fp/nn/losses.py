"""The losses of mlx.nn: pure functions of arrays, of which `cross_entropy` is faster under `mlx_fp.jit.native`.

Mind the default `reduction`: "mean" for `binary_cross_entropy`, `gaussian_nll_loss`, `l1_loss`, `mse_loss` and
`smooth_l1_loss`, "none" for the others.
"""

from mlx.nn.losses import (
    binary_cross_entropy,
    cosine_similarity_loss,
    gaussian_nll_loss,
    hinge_loss,
    huber_loss,
    kl_div_loss,
    l1_loss,
    log_cosh_loss,
    margin_ranking_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
    triplet_loss,
)

from ..cpu._composed import cross_entropy

__all__ = [
    "binary_cross_entropy",
    "cosine_similarity_loss",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_loss",
    "huber_loss",
    "kl_div_loss",
    "l1_loss",
    "log_cosh_loss",
    "margin_ranking_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
    "triplet_loss",
]
