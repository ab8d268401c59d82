"""Learns slower when a run gets no better. An ordinary hook."""

from __future__ import annotations

from ..core._options import check_options, count, number
from ..optim import scale_rates
from ..optim._rates import scheduled_rates
from ._event import AfterEvaluation, BeforeFit
from ._hook import Replace, fold, hook
from ._trainer import Verb, with_hooks

__all__ = ["plateau"]


def plateau(factor: float = 0.1, *, patience: int = 10, least: float = 0.0) -> Verb:
    """Multiply every learning rate by `factor` once `patience` evaluations in a row bring no improvement.

    No rate falls below `least`. A `patience` of 0 is taken as 1. The count starts anew after each change. A rate that
    follows a schedule is computed at each step and cannot be changed: ValueError when the run starts.

    >>> from mlx_fp import classification, nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(4, 2), classification()), plateau(0.5, patience=2)).hooks
    (on('before_fit', check), on('after_evaluation', plateau(0.5)))
    """
    given = {"factor": factor, "patience": patience, "least": least}
    check_options("plateau", given, {"factor": number(above=0, below=1), "patience": count(0), "least": number(0)})

    def check(event: BeforeFit) -> None:
        optimizer, state = event.optimizer, event.state.opt_state.get("optimizer")
        if not state:
            raise ValueError("plateau changes the learning rate of an optimiser, and the state of this step has none")
        for path in scheduled_rates(optimizer, state, event.trainable):
            raise ValueError(f"plateau changes a rate that is a number; {path} of {optimizer.name} is a schedule")

    def watch(changed_at: int, event: AfterEvaluation) -> tuple[int, Replace | None]:
        stale = event.row.stale
        changed_at = min(changed_at, stale)  # an improvement begins the count anew
        if stale - changed_at < max(patience, 1):
            return changed_at, None
        return stale, Replace(opt_state=scale_rates(factor, least=least)(event.state.opt_state))

    return with_hooks(hook("before_fit", check), fold("after_evaluation", 0, watch, name=f"plateau({factor:g})"))
