"""What a run is asked to do: the options of `fit` and `events`, checked when they are given."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from ..core._errors import is_count, unknown
from ..core._mlx import mx
from ..core._types import Array, Params
from ..core.backend import device_backend
from ..data import Dataset, Splits, as_dataset, collate
from ..task._task import Task
from ..tree._paths import size
from ._event import event_name
from ._totals import Reducer, checked_reducer

__all__ = ["SYNC", "Options", "Plan", "check_unrolling", "plan", "shaped"]

_NONFINITE = ("raise", "skip", "stop", "keep")
_SYNCS = ("async", "step", "epoch", "none")

SYNC: dict[str, Callable[..., Any]] = {"async": mx.async_eval, "step": mx.eval}
"""What is done with the results of a step, by the name of a `sync`; nothing for the other names."""


class Options(TypedDict, total=False):
    """The options of `fit` and `events`.

    `validation` is a Dataset or a sequence of batches, read anew each epoch, as the training data is. Parameters start
    from `params`, or from `seed`, 0 if none is given, which seeds the random stream of the run too. `compile`,
    `dtype` and `streams` are those of `train_step`. `keep_losses=False` drops the losses of single steps.

    `reduce` and `validation_reduce` say what the loss of an epoch is of those of its batches: `"mean"`, weighted by
    examples, `"sum"`, `"last"`, or a function of the list of them. `averaged` validates the averages that `ema` keeps,
    in place of the parameters, so that the best epoch is theirs.

    `sync` says when the loop waits for the device. `"async"` queues each step and is at most two ahead, so that the
    next batch is prepared meanwhile. `"step"` waits for each; `"epoch"` runs an epoch at its end, at once; `"none"`
    only when a value is read, which the row of an epoch does. The last two hold the work of a whole epoch. Large
    models on CPUs wait in their step, for the sake of memory.

    `steps_per_call` takes so many steps in one compiled call, which is faster for small models: their kernels are
    short, and each has a price. Events come for every step, but those of one call together, before it and after it,
    and a hook that asks to stop or save is heard after the call. Batches of other shapes, and the last ones of an
    epoch, are taken one by one.

    `nonfinite` says what becomes of a loss that is NaN or infinite: `"raise"` ends the run with a FloatingPointError,
    `"stop"` with a report; `"skip"` leaves the step out, of parameters, optimiser and sums, if its gradients are not
    finite either. It is found when losses are read, up to two steps late. `"keep"` goes on with it.

    `resume` goes on where a checkpoint left off: a path, of a checkpoint or a run bundle, `"latest"` or `"best"` of the
    trainer's own, a loaded checkpoint or bundle, or a function that gives one of these. `epochs` is the whole number.
    """

    validation: Any
    epochs: int
    params: Params | None
    seed: int | Array
    compile: bool | Mapping[str, Any]
    dtype: Any
    streams: int
    keep_losses: bool
    reduce: Reducer
    validation_reduce: Reducer
    averaged: bool
    sync: str
    steps_per_call: int
    nonfinite: str
    resume: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's options, checked."""

    train: Dataset
    wanted: frozenset[str]
    """The events that the stream yields."""
    validation: Dataset | None = None
    epochs: int = 1
    params: Params | None = None
    seed: int | Array = 0
    compile: bool | Mapping[str, Any] = True
    dtype: Any = None
    streams: int = 1
    keep_losses: bool = True
    reduce: Reducer = "mean"
    validation_reduce: Reducer = "mean"
    averaged: bool = False
    sync: str = "async"
    steps_per_call: int = 1
    nonfinite: str = "raise"
    resume: Any = None

    def shaped(self, task: Task) -> Plan:
        """Return the plan with batches shaped as the task wants them."""
        validation = None if self.validation is None else shaped(self.validation, task)
        return replace(self, train=shaped(self.train, task), validation=validation)


def plan(train: Any, only: Iterable[str], options: Options) -> Plan:
    """Check the options of a run. TypeError or ValueError, with candidates, for those that are wrong.

    >>> plan([1, 2], (), {"sync": "asynch"})
    Traceback (most recent call last):
    ValueError: unknown sync 'asynch': did you mean 'async'? known: async, step, epoch, none
    """
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(unknown("option", name, Options.__annotations__))
    given: dict[str, Any] = dict(options)
    if isinstance(train, Splits):
        train, given = train.train, {"validation": train.validation, **given}
    epochs, sync = given.get("epochs", 1), given.get("sync", "async")
    if not is_count(epochs):
        raise ValueError(f"epochs is a count, 0 or more; got {epochs!r}")
    if not is_count(given.get("steps_per_call", 1), least=1):
        raise ValueError(f"steps_per_call is a count, 1 or more; got {given['steps_per_call']!r}")
    if sync not in _SYNCS:
        raise ValueError(unknown("sync", str(sync), _SYNCS))
    if given.get("nonfinite", "raise") not in _NONFINITE:
        raise ValueError(unknown("nonfinite", str(given["nonfinite"]), _NONFINITE))
    for name in ("reduce", "validation_reduce"):
        checked_reducer(given.get(name, "mean"))
    if given.get("validation") is not None:
        given["validation"] = as_dataset(given["validation"])
    return Plan(as_dataset(train), frozenset(event_name(name) for name in only), **given)


def shaped(data: Dataset, task: Task) -> Dataset:
    """Return data with batches as a task wants them.

    >>> from mlx_fp.task._task import classification
    >>> list(shaped(as_dataset([{"input": 1, "label": 2}]), classification()))
    [{'x': 1, 'y': 2}]
    """
    return data if task.collate is None else collate(task.collate)(data)


def check_unrolling(count: int, params: Params, listened: Container[str]) -> None:
    """Refuse several steps in one call where a hook wants to come between; warn where they gain nothing.

    >>> check_unrolling(2, {}, {"after_backward"})
    Traceback (most recent call last):
    ValueError: steps_per_call=2 takes whole steps, and a hook listens to after_backward, which is in the midst of one
    """
    if count == 1:
        return
    if "after_backward" in listened:
        reason = "takes whole steps, and a hook listens to after_backward, which is in the midst of one"
        raise ValueError(f"steps_per_call={count} {reason}")
    if not device_backend().unrolls(elements := size(params)):
        warnings.warn(
            f"steps_per_call={count} is for small models: with {elements:,} parameters it saves nothing, and costs "
            "memory and time to compile",
            RuntimeWarning,
            stacklevel=2,
        )
