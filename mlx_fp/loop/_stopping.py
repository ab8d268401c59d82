"""Verbs that stop a run early: without improvement, or after divergence. Both add ordinary hooks."""

from __future__ import annotations

import math

from ..core._errors import is_count
from ._directive import Stop
from ._event import AfterEvaluation, AfterStep
from ._on import on
from ._verb import TrainerVerb, as_verb

__all__ = ["early_stop", "stop_on_divergence"]


def early_stop(patience: int = 0) -> TrainerVerb:
    """Stop after several evaluations in a row without improvement.

    An evaluation is each validation, or the end of an epoch where there is no validation data. The monitor decides
    about improvement: `monitor(…, min_delta=…)`.

    Args:
        patience: The number of evaluations without improvement, 0 or more. 0 counts as 1.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        ValueError: `patience` is no count.

    >>> from mlx_fp import classification, nn, trainer
    >>> early_stop(patience=3)
    early_stop(patience=3)
    >>> pipe(trainer(nn.linear(4, 2), classification()), early_stop(3)).hooks
    (on('after_evaluation', early_stop(3)),)
    """
    if not is_count(patience):
        raise ValueError(f"patience is a count of evaluations, 0 or more; got {patience!r}")

    def watch(event: AfterEvaluation) -> Stop | None:
        stale = event.row.stale
        return Stop(f"no improvement in {stale} evaluations") if stale >= max(patience, 1) else None

    return as_verb(early_stop, on("after_evaluation", watch, name=f"early_stop({patience})"), patience=patience)


def stop_on_divergence(*, every: int = 50, above: float = math.inf) -> TrainerVerb:
    """Stop when the loss of a step is NaN, infinite, or greater than a limit.

    Each reading of a loss waits for the device.

    Args:
        every: Steps between two readings.
        above: The greatest loss with which the run goes on.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        ValueError: `above` is no number, or `every` is no count.

    >>> stop_on_divergence(above=100.0)
    stop_on_divergence(above=100.0)
    """
    if isinstance(above, bool) or not isinstance(above, (int, float)) or math.isnan(above):
        raise ValueError(f"above is a number; got {above!r}")

    def watch(event: AfterStep) -> Stop | None:
        loss = event.loss_value
        if math.isfinite(loss) and loss <= above:
            return None
        return Stop(f"the loss is {loss:g} at step {event.step}", diverged=not math.isfinite(loss))

    added = on("after_step", watch, every=every, name="stop_on_divergence")
    return as_verb(stop_on_divergence, added, every=every, above=above)
