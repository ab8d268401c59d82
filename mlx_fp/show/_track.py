"""Send the figures of a run to a tracker of any kind."""

from __future__ import annotations

from typing import Protocol

from ..loop._event import AfterEpoch, AfterLog, AfterValidation
from ..loop._hook import hook
from ..loop._trainer import with_hooks
from ..loop._verb import TrainerVerb, as_verb

__all__ = ["track"]


class Log(Protocol):
    """A function that a tracker logs figures with, for example `wandb.log`."""

    def __call__(self, figures: dict[str, float], /, *, step: int) -> object:
        """Log figures, floats by name, at a number of steps."""


def track(log: Log) -> TrainerVerb:
    """Call `log(figures, step=…)` for each epoch, each evaluation and each logged step.

    `fit(log_every=n)` logs every n-th step.

    Args:
        log: A function that takes a dict of floats by name, and the number of steps of the run so far. For example,
            `wandb.log` is one.

    Returns:
        A function from a trainer to a trainer with these hooks.

    Raises:
        TypeError: `log` is no function.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(3, 1), lambda m, x: m(x).mean()), track(print)).hooks
    (on('after_log', step), on('after_evaluation', evaluation), on('after_epoch', epoch))
    """
    if not callable(log):
        raise TypeError(f"track takes a function of figures and a step; got {log!r}")

    def step(event: AfterLog) -> None:
        numbers = {name: value for name, value in event.row.to_dict().items() if isinstance(value, (int, float))}
        log({name: float(value) for name, value in numbers.items() if name != "step"}, step=event.row.step)

    def evaluation(event: AfterValidation) -> None:
        if event.row.batches:
            log(event.row.figures(), step=event.row.step)

    def epoch(event: AfterEpoch) -> None:
        log({"epoch": event.row.epoch, **event.row.figures()}, step=event.row.steps)

    hooks = hook("after_log", step), hook("after_evaluation", evaluation), hook("after_epoch", epoch)
    return as_verb(track, with_hooks(*hooks), log)
