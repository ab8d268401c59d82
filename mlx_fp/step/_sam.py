"""Gradients at the worst place near the parameters."""

from __future__ import annotations

from ..core._mlx import utils
from ..core._options import check_options, number
from ..core._types import Array, Batch, Params, State
from ..tree._paths import divided, flat, merge, norm
from ..tree._select import Select
from ._enclosing import NamedVerb
from ._pass import Backward, Pass, Verb

__all__ = ["sam"]

_TINY = 1e-12
"""Added to the norm of the gradients, which may be 0."""


def sam(rho: float) -> Verb:
    """Take the gradients at the parameters `p + rho * g / |g|`, where `g` are the gradients at the parameters `p`.

    This is sharpness-aware minimisation (Foret et al., https://arxiv.org/abs/2010.01412). A step computes two passes
    with the same random numbers. Logs, metrics and buffers are those of the first.

    `through=[in_parts(4), sam(0.05)]` takes the gradients of the whole batch for both passes.
    `through=[sam(0.05), in_parts(4)]` moves the parameters for each part by itself, as several processes do.

    Args:
        rho: The distance, in the L2 norm over all parameters that train; above 0.

    Returns:
        A verb, for `train_step(through=[…])`.

    Raises:
        ValueError: `rho` is not above 0.

    >>> from mlx_fp import nn, optim, train_step
    >>> step = train_step(nn.linear(2, 1), lambda model, x: model(x).mean(), optim.sgd(0.1), through=[sam(0.05)])
    >>> step.traces
    0
    """
    check_options("sam", {"rho": rho}, {"rho": number(above=0)})

    def verb(backward: Backward) -> Backward:
        def run(params: Params, opt_state: State, batch: Batch) -> Pass:
            first = backward(params, opt_state, batch)
            trained = frozenset(flat(first.grads))
            trainable, rest = divided(Select(lambda path, leaf: path in trained, "trained"))(params)
            scale = rho / (norm(first.grads) + _TINY)

            def moved(leaf: Array, gradient: Array) -> Array:
                return leaf + (scale * gradient).astype(leaf.dtype)

            uphill = merge(utils.tree_map(moved, trainable, first.grads), rest)
            return first._replace(grads=backward(uphill, opt_state, batch).grads)

        return run

    return NamedVerb("sam", f"sam({rho})", verb)
