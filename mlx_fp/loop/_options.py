"""The options of a run, in one table: default, rule and description of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from ..core._frozen import FrozenDict
from ..core._help import Shown, show_parameters
from ..core._options import FLAG, Rule, count, optional
from ..core._types import Array, Params
from ._totals import Reducer

__all__ = ["OPTIONS", "Option", "Options", "documented"]

F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The options of `fit`, `events`, `run` and `sweep` with their types; `OPTIONS` describes each."""

    validation: Any
    epochs: int | None
    steps: int | None
    validate_every: int | None
    log_every: int | None
    accumulate: int
    params: Params | None
    seed: int | Array
    compile: bool | Mapping[str, Any]
    dtype: Any
    parts: int
    streams: int
    keep_losses: bool
    keep_best: bool
    reduce: Reducer
    validation_reduce: Reducer
    averaged: bool
    sync: str
    steps_per_call: int
    nonfinite: str
    resume: Any


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a run."""

    default: Any
    words: str
    rule: Rule | None = None
    choices: tuple[str, ...] = ()


_SOME = count(1)

OPTIONS: Mapping[str, Option] = FrozenDict(
    validation=Option(
        None,
        "Data to evaluate on: a Dataset or a sequence of batches, which is read anew each time, or a dict of several "
        "by name, whose figures are `val_NAME_loss` and so on.",
    ),
    epochs=Option(
        None,
        "Passes over the data in the whole run, of which a resumed run has done a part. None is 1, or as many as "
        "`steps` take.",
        optional(count(0)),
    ),
    steps=Option(None, "Updates in the whole run, in place of `epochs`; the data go round.", optional(count(0))),
    validate_every=Option(None, "Steps between two validations; None validates after each epoch.", optional(_SOME)),
    log_every=Option(None, "Steps between two rows of `report.steps`; None makes no such rows.", optional(_SOME)),
    accumulate=Option(1, "Batches of one update, taken as if they were one. A last group may have fewer.", _SOME),
    params=Option(None, "Parameters to start from, or a report with them; None draws them from `seed`."),
    seed=Option(0, "Seed of the parameters and of the random stream: an int, or a key of shape `(2,)`, uint32."),
    compile=Option(True, "Whether to compile the step, or a dict of options of `mx.compile`."),
    dtype=Option(None, "Dtype in which the model computes, for example `mx.bfloat16`; None leaves it as it is."),
    parts=Option(1, "Parts of a batch that are computed one after the other, which saves memory.", _SOME),
    streams=Option(1, "Parts of a batch that are computed side by side.", _SOME),
    keep_losses=Option(True, "Whether `report.losses` holds the loss of each step.", FLAG),
    keep_best=Option(
        False,
        "Whether `report.best_params` holds the parameters of the best evaluation; checkpoints hold them too.",
        FLAG,
    ),
    reduce=Option(
        "mean",
        'Loss of an epoch from the losses of its steps: "mean" over all that counts, "sum", "last", or a function of '
        "the list.",
    ),
    validation_reduce=Option("mean", "The same for validation."),
    averaged=Option(
        False,
        "Whether to validate the averages that `optim.ema` keeps; the best parameters are then averages too.",
        FLAG,
    ),
    sync=Option(
        "async",
        'When to wait for the device: "async" is at most two steps ahead, "step" waits for each step, "epoch" at the '
        'end of an epoch, "none" only where a value is read. The last two keep the work of an epoch in memory.',
        choices=("async", "step", "epoch", "none"),
    ),
    steps_per_call=Option(
        1,
        "Steps in one compiled call, which is faster for small models. Hooks run before and after the call, and a stop "
        "or a save waits for its end.",
        _SOME,
    ),
    nonfinite=Option(
        "raise",
        'Treatment of a loss that is NaN or infinite, found up to two steps late: "raise" a FloatingPointError, "stop" '
        'with a report, "skip" the step, or "keep" going. A batch in which nothing counts is not such a loss.',
        choices=("raise", "skip", "stop", "keep"),
    ),
    resume=Option(
        None,
        'Where to go on: the path of a checkpoint or of a bundle, "latest" or "best" of the trainer\'s own, a loaded '
        "checkpoint or bundle, or a function that returns one of these.",
    ),
)
"""Each option by its name, in the order in which `help` lists them."""


def documented(fn: F) -> F:
    """Put the options of a run in the place of `**options`, in the signature and in the docstring."""
    types = {name: getattr(kind, "__forward_arg__", kind) for name, kind in Options.__annotations__.items()}
    return show_parameters(
        fn, [Shown(name, types[name], option.default, option.words) for name, option in OPTIONS.items()]
    )
