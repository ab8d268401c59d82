"""Hand the figures of a run to a tracker, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..loop._hook import hook
from ..loop._trainer import Verb, with_hooks

__all__ = ["track"]


def track(log: Callable[..., Any], *, every_steps: int | None = None) -> Verb:
    """Call `log(figures, step=…)` after each epoch, and with the loss of every `every_steps`-th step.

    `figures` is a dict of floats by name, `step` counts steps from 1: what `wandb.log` and its like take. Each step
    that is logged waits for the device.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(3, 1), lambda m, x: m(x).mean()), track(print, every_steps=10)).hooks
    (on('after_step', step), on('after_epoch', epoch))
    """
    if not callable(log):
        raise TypeError(f"track takes a function of figures and a step; got {log!r}")

    def step(event: Any) -> None:
        log({"loss": event.loss_value}, step=event.step + 1)

    def epoch(event: Any) -> None:
        log({"epoch": event.row.epoch, **event.row.figures()}, step=event.row.steps)

    steps = [] if every_steps is None else [hook("after_step", step, every=every_steps)]
    return with_hooks(*steps, hook("after_epoch", epoch))
