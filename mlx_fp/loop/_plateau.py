"""A verb that lowers the learning rates of a run without improvement. It adds ordinary hooks."""

from __future__ import annotations

from ..core._options import check_options, count, number
from ..optim import scale_rates
from ..optim._rates import scheduled_rates
from ._directive import Replace
from ._event import AfterEvaluation, BeforeFit
from ._hook import fold, hook
from ._trainer import with_hooks
from ._verb import TrainerVerb, as_verb

__all__ = ["plateau"]


def plateau(factor: float = 0.1, *, patience: int = 10, least: float = 0.0) -> TrainerVerb:
    """Multiply every learning rate by a factor after several evaluations in a row without improvement.

    The count starts again after each change.

    Args:
        factor: The factor, above 0 and below 1.
        patience: The number of evaluations without improvement, 0 or more. 0 counts as 1.
        least: The lower limit of each rate.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        ValueError: An option is out of range; or, when the run starts, a rate follows a schedule. A scheduled rate is
            computed at each step and cannot be changed.

    >>> from mlx_fp import classification, nn, trainer
    >>> plateau(0.5, patience=2)
    plateau(0.5, patience=2)
    >>> pipe(trainer(nn.linear(4, 2), classification()), plateau(0.5, patience=2)).hooks
    (on('before_fit', check), on('after_evaluation', plateau(0.5)))
    """
    options = {"factor": factor, "patience": patience, "least": least}
    check_options("plateau", options, {"factor": number(above=0, below=1), "patience": count(0), "least": number(0)})

    def check(event: BeforeFit) -> None:
        optimizer, state = event.optimizer, event.state.opt_state.get("optimizer")
        if not state:
            raise ValueError("plateau changes the learning rate of an optimiser, and the state of this step has none")
        for path in scheduled_rates(optimizer, state, event.trainable):
            raise ValueError(f"plateau changes a rate that is a number; {path} of {optimizer.name} is a schedule")

    def watch(stale_at_change: int, event: AfterEvaluation) -> tuple[int, Replace | None]:
        stale = event.row.stale
        stale_at_change = min(stale_at_change, stale)  # the count starts again after an improvement
        if stale - stale_at_change < max(patience, 1):
            return stale_at_change, None
        return stale, Replace(opt_state=scale_rates(factor, least=least)(event.state.opt_state))

    lowering = fold("after_evaluation", 0, watch, name=f"plateau({factor:g})")
    return as_verb(plateau, with_hooks(hook("before_fit", check), lowering), factor, patience=patience, least=least)
