"""Hand the figures of a run to a tracker, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..loop._hook import hook
from ..loop._trainer import Verb, with_hooks

__all__ = ["track"]


def track(log: Callable[..., Any]) -> Verb:
    """Call `log(figures, step=…)` for each epoch, each evaluation, and each step that `fit(log_every=n)` logs.

    Args:
        log: takes a dict of floats by name, and the steps of the run so far, as `wandb.log` and its like do.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(3, 1), lambda m, x: m(x).mean()), track(print)).hooks
    (on('after_log', step), on('after_evaluation', evaluation), on('after_epoch', epoch))
    """
    if not callable(log):
        raise TypeError(f"track takes a function of figures and a step; got {log!r}")

    def step(event: Any) -> None:
        row = event.row.to_dict()
        log({name: value for name, value in row.items() if name != "step" and value is not None}, step=row["step"])

    def evaluation(event: Any) -> None:
        if event.row.batches:
            log(event.row.figures(), step=event.row.step)

    def epoch(event: Any) -> None:
        log({"epoch": event.row.epoch, **event.row.figures()}, step=event.row.steps)

    return with_hooks(hook("after_log", step), hook("after_evaluation", evaluation), hook("after_epoch", epoch))
