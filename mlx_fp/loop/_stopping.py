"""Ends a run that gets no better, or that is lost. Ordinary hooks."""

from __future__ import annotations

import math
from typing import Any

from ..core._errors import is_count
from ._event import AfterEvaluation, AfterStep
from ._hook import Stop
from ._on import on
from ._trainer import Verb

__all__ = ["early_stop", "stop_on_divergence"]


def early_stop(patience: int = 0) -> Verb:
    """Stop once `patience` evaluations in a row have brought no improvement; 0 is taken as 1.

    An evaluation is each validation, or the end of an epoch where there is no validation data.

    What improves is the monitor's to say: `monitor(…, min_delta=…)`.

    >>> from mlx_fp import classification, nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(4, 2), classification()), early_stop(3)).hooks
    (on('after_evaluation', early_stop(3)),)
    """
    if not is_count(patience):
        raise ValueError(f"patience is a count of evaluations, 0 or more; got {patience!r}")

    def watch(event: AfterEvaluation) -> Stop | None:
        stale = event.row.stale
        return Stop(f"no improvement in {stale} evaluations") if stale >= max(patience, 1) else None

    return on("after_evaluation", watch, name=f"early_stop({patience})")


def stop_on_divergence(*, every: int = 50, above: float = math.inf) -> Verb:
    """Stop when the loss of a step is NaN, infinite, or beyond `above`; it is read at every `every`-th step.

    Each reading waits for the device.
    """
    if isinstance(above, bool) or not isinstance(above, (int, float)) or math.isnan(above):
        raise ValueError(f"above is a number; got {above!r}")

    def watch(event: AfterStep) -> Any:
        loss = event.loss_value
        if math.isfinite(loss) and loss <= above:
            return None
        return Stop(f"the loss is {loss:g} at step {event.step}", diverged=not math.isfinite(loss))

    return on("after_step", watch, every=every, name="stop_on_divergence")
