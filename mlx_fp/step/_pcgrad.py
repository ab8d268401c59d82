"""The sum of the gradients of several losses, without the parts that conflict."""

from __future__ import annotations

from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State, Tree
from ..tree._casting import widened
from ..tree._paths import leaves
from ._enclosing import NamedVerb
from ._objective import TOTAL, with_objective, without_objective
from ._pass import Backward, Pass, Verb

__all__ = ["pcgrad"]


def pcgrad(*losses: str) -> Verb:
    """Sum the gradients of several losses. Before, take from each gradient its conflicts with the other gradients.

    This is gradient surgery (Yu et al., https://arxiv.org/abs/2001.06782). Two gradients conflict if their product is
    negative. For each loss `i`, in order, and each other loss `j`: `g_i -= (g_i · g_j) / |g_j|² * g_j` where
    `g_i · g_j < 0`; here `g_j` is the unchanged gradient. The original takes the losses `j` in a random order.

    The loss of the step returns the losses as figures: `total, {"depth": depth, "edges": edges}`. Logs and metrics stay
    those of that loss. If the total is the sum of the losses and no gradients conflict, the step is the plain one.

    Args:
        losses: The names of two figures or more.

    Returns:
        A verb, for `train_step(through=[…])`.

    Raises:
        TypeError: A name is no text.
        ValueError: There are fewer than two names, or two equal ones. In a step: the loss returns no such figure.

    >>> pcgrad("depth", "edges")
    pcgrad('depth', 'edges')
    """
    if not all(isinstance(name, str) for name in losses):
        raise TypeError(f"pcgrad takes names of figures of the loss, as texts; got {losses!r}")
    if len(set(losses)) < 2 or len(set(losses)) < len(losses):
        raise ValueError(f"pcgrad takes two names or more, each once; got {losses!r}")

    def verb(backward: Backward) -> Backward:
        def run(params: Params, opt_state: State, batch: Batch) -> Pass:
            passes = [backward(params, with_objective(opt_state, name), batch) for name in losses]
            grads = _without_conflicts([widened(each.grads) for each in passes])
            first = passes[0]
            logs, weights = _of_the_step(first.logs), _of_the_step(first.weights)
            return first._replace(grads=grads, opt_state=without_objective(first.opt_state), logs=logs, weights=weights)

        return run

    return NamedVerb("pcgrad", f"pcgrad({', '.join(map(repr, losses))})", verb)


def _without_conflicts(gradients: list[Tree]) -> Tree:
    """Return the sum of gradients, each without the parts that conflict with other gradients."""
    lengths = [_product(g, g) for g in gradients]
    projected = []
    for i, own in enumerate(gradients):
        for j, other in enumerate(gradients):
            if i != j:
                product = _product(own, other)
                share = mx.where(product < 0, product / mx.where(lengths[j] > 0, lengths[j], 1.0), 0.0)
                own = utils.tree_map(lambda g, o, s=share: g - s * o, own, other)
        projected.append(own)
    return utils.tree_map(lambda *parts: sum(parts[1:], parts[0]), *projected)


def _product(one: Tree, other: Tree) -> Array:
    """Return the sum of the products of all elements of two trees."""
    return mx.stack([mx.sum(a * b) for a, b in zip(leaves(one), leaves(other), strict=True)]).sum()


def _of_the_step(values: State) -> State:
    """Return logs, or their weights, with those of the loss of the step under `loss`."""
    return {name: value for name, value in values.items() if name != TOTAL} | {"loss": values[TOTAL]}
