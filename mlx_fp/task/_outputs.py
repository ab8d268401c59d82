"""The outputs that metrics take, named within a loss."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from ..core._types import Tree

__all__ = ["outputs", "receive_outputs"]

T = TypeVar("T")

_receiver: ContextVar[Callable[[Tree], None] | None] = ContextVar("receiver", default=None)
"""The function of the step that takes the outputs that its loss names."""


def outputs(tree: T) -> T:
    """Name the outputs that metrics take, within a loss that calls the model several times.

    A loss that calls the model once does not need this function. Outside a step it has no effect.

    Args:
        tree: The outputs: an array, or a dict, tuple or list of arrays.

    Returns:
        The outputs, unchanged.

    >>> import mlx.core as mx
    >>> from mlx_fp import metrics, nn, optim, train_step
    >>> def loss(model, x, y):
    ...     logits = outputs(model(x))
    ...     return nn.losses.cross_entropy(logits, y, reduction="mean") + model(-x).square().mean()
    >>> step = train_step(nn.linear(2, 2), loss, optim.sgd(0.1), metrics=[metrics.accuracy()])
    >>> _, state, _ = step(*step.init(0), (mx.zeros((4, 2)), mx.zeros((4,), mx.int32)))
    >>> state["metrics"]["accuracy"]["count"].item()
    4
    """
    receiver = _receiver.get()
    if receiver is not None:
        receiver(tree)
    return tree


def receive_outputs(receiver: Callable[[Tree], None]) -> None:
    """Let `receiver` take the outputs that `outputs` names, in the rest of the present context."""
    _receiver.set(receiver)
