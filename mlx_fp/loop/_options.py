"""The options of a run, in one table with the default, rule and description of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from ..across._world import ALONE, World
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
    update: str
    keep_losses: bool
    keep_best: bool
    reduce: Reducer
    validation_reduce: Reducer
    averaged: bool
    sync: str
    steps_per_call: int
    nonfinite: str
    debug: bool
    resume: Any
    across: World
    out: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a run."""

    default: object
    words: str
    """The description, for `help`."""
    rule: Rule | None = None
    """The rule of its values; None: a check of its own."""
    choices: tuple[str, ...] = ()


_SOME = count(1)


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str) and bool(os.fspath(value))


OPTIONS: Mapping[str, Option] = FrozenDict(
    validation=Option(
        None,
        "Validation data: a Dataset or a sequence of batches, or a dict of several sets by name, whose figures are "
        "`val_NAME_loss` and so on. None: no validation.",
    ),
    epochs=Option(
        None,
        "Passes over the data in the whole run, including those before it was resumed. None: 1, or as many as `steps` "
        "need.",
        optional(count(0)),
    ),
    steps=Option(
        None,
        "Updates in the whole run, in place of `epochs`. The data are read again as often as needed.",
        optional(count(0)),
    ),
    validate_every=Option(None, "Steps between two validations. None: after each epoch.", optional(_SOME)),
    log_every=Option(
        None, "Steps between two logged steps, see `report.steps`. None: no step is logged.", optional(_SOME)
    ),
    accumulate=Option(
        1, "Batches of one update, which count as one batch. The last update of an epoch may have fewer.", _SOME
    ),
    params=Option(None, "Parameters to start from, or a report with them. None: drawn with `seed`."),
    seed=Option(0, "Seed of the parameters and of the random stream: an int, or a key of shape `(2,)`, uint32."),
    compile=Option(True, "Whether to compile the step, or a dict of options of `mx.compile`."),
    dtype=Option(None, "Dtype in which the model computes, for example `mx.bfloat16`. None: that of the parameters."),
    parts=Option(1, "Parts of a batch that are computed one after the other, to save memory.", _SOME),
    streams=Option(1, "Parts of a batch that are computed side by side.", _SOME),
    update=Option(
        "at_end",
        'Time of the update of a parameter: "at_end", when all gradients are there, or "in_backward", as soon as its '
        "own gradient is there, which saves memory between parts of `nn.remat`.",
        choices=("at_end", "in_backward"),
    ),
    keep_losses=Option(True, "Whether `report.losses` holds the loss of each step.", FLAG),
    keep_best=Option(
        False,
        "Whether `report.best_params` and the checkpoints hold the parameters of the best evaluation.",
        FLAG,
    ),
    reduce=Option(
        "mean",
        'Reduction of the losses of an epoch to one: "mean" (weighted), "sum", "last", or a function of the list.',
    ),
    validation_reduce=Option("mean", "The same for the losses of validation."),
    averaged=Option(
        False,
        "Whether to validate the averages of `optim.ema`. The best parameters are then averages too.",
        FLAG,
    ),
    sync=Option(
        "async",
        'When to wait for the device: "async" queues at most two steps, "step" waits for each step, "epoch" for the '
        'end of an epoch, "none" only where a value is read. The last two keep all work of an epoch in memory.',
        choices=("async", "step", "epoch", "none"),
    ),
    steps_per_call=Option(
        1,
        "Steps in one compiled call, which is faster for small models. Hooks run before and after a call, and a stop "
        "or a save waits for its end.",
        _SOME,
    ),
    nonfinite=Option(
        "raise",
        'Treatment of a loss that is NaN or infinite, up to two steps late: "raise" a FloatingPointError, "stop" with '
        'a report, "skip" the step, or "keep" on. The loss of a batch in which nothing counts is not treated.',
        choices=("raise", "skip", "stop", "keep"),
    ),
    debug=Option(
        False,
        "Whether to check the loss and the update after each step. Where one is not finite, the step is computed again "
        "from the state before it, and the error names the first layer and operation, as `find_nonfinite` does. It is "
        "slower, and needs memory for a second state.",
        FLAG,
    ),
    resume=Option(
        None,
        'The state to resume from: the path of a checkpoint or bundle, "latest" or "best" of the trainer\'s '
        "checkpoints, a loaded checkpoint or bundle, or a function that returns one of these. None: a new run.",
    ),
    across=Option(
        ALONE,
        "The processes that share each batch, `fp.world()`. Each runs the same program. Default: this process alone.",
        Rule("a World, fp.world()", lambda value: isinstance(value, World), of_type=True),
    ),
    out=Option(
        None,
        "The folder of the run: its checkpoints, `steps.jsonl` with the logged steps, `bundle.json`, and the page "
        "`report.html`. None: no folder.",
        optional(Rule("the path of a folder", _is_path, of_type=True)),
    ),
)
"""Each option by its name, in the order in which `help` lists them."""


def documented(fn: F) -> F:
    """Put the options of a run in place of `**options`, in the signature and in the docstring."""
    types = {name: getattr(kind, "__forward_arg__", kind) for name, kind in Options.__annotations__.items()}
    return show_parameters(
        fn, [Shown(name, types[name], option.default, option.words) for name, option in OPTIONS.items()]
    )
