"""What a run is asked to do: the options of `fit` and `events`, checked when they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from ..checkpointing._resume import check_source
from ..compile import rng
from ..core._errors import is_count, unknown
from ..core._frozen import FrozenDict
from ..core._mlx import mx
from ..core._options import FLAG, check_options
from ..core._types import Array, Params
from ..data import Dataset, Splits, as_dataset, collate
from ..nn._layer import check_tree
from ..step._checks import check_options as check_step_options
from ..task._task import Task
from ._event import event_name
from ._totals import Reducer, checked_reducer

__all__ = ["SYNC", "Options", "Plan", "checked_options", "merged", "plan", "shaped"]

_NONFINITE = ("raise", "skip", "stop", "keep")
_SYNCS = ("async", "step", "epoch", "none")
_MAY_BE_NONE = ("epochs", "steps", "validate_every", "log_every")
_COUNTS = {**dict.fromkeys(_MAY_BE_NONE, 1), "epochs": 0, "steps": 0} | dict.fromkeys(
    ("accumulate", "steps_per_call", "parts", "streams"), 1
)
"""The options that are counts, and the least of each."""

_FLAGS = dict.fromkeys(("keep_losses", "keep_best", "averaged"), FLAG)

SYNC: dict[str, Callable[..., Any]] = {"async": mx.async_eval, "step": mx.eval}
"""What is done with the results of a step, by the name of a `sync`; nothing for the other names."""


class Options(TypedDict, total=False):
    """The options of `fit` and `events`.

    `epochs`, 1 by default, or `steps`, a number of updates over which the data go round, says how long the run is; both
    are the whole number, of which a resumed run has done a part.

    `validation` is a Dataset or a sequence of batches, read anew each time, or a dict of several by name, whose figures
    are `val_NAME_loss` and so on. It is read after each epoch, or with `validate_every=n` after every n steps and at
    the end. `log_every=n` logs every n-th step, see `StepRow`.

    Parameters start from `params`, or from `seed`, 0 if none is given, which seeds the random stream of the run too.
    `compile`, `dtype`, `parts` and `streams` are those of `train_step`. `accumulate=n` makes one step of n batches, as
    if they were one; a last group of fewer is a step too. `keep_losses=False` drops the losses of single steps.
    `keep_best=True` keeps the parameters of the best evaluation in memory, and in checkpoints: `report.best_params`.

    `reduce` and `validation_reduce` say how the loss of an epoch is made of those of its steps: `"mean"`, over all that
    counts, `"sum"`, `"last"`, or a function of the list of them. `averaged` validates the averages that `ema` keeps, in
    place of the parameters, so that the best evaluation is theirs.

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
    finite either. It is found when losses are read, up to two steps late. `"keep"` goes on with it. The NaN of a batch
    in which nothing counts is none of these: it is in no sum.

    `resume` goes on where a checkpoint left off: a path, of a checkpoint or a run bundle, `"latest"` or `"best"` of the
    trainer's own, a loaded checkpoint or bundle, or a function that gives one of these.
    """

    validation: Any
    epochs: int
    steps: int
    validate_every: int
    log_every: int
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
class Plan:
    """A run's options, checked."""

    train: Dataset
    wanted: frozenset[str]
    """The events that the stream yields."""
    validation: Mapping[str, Dataset] = field(default_factory=FrozenDict)
    """The validation sets by name; a single one has the name ""."""
    epochs: int | None = None
    steps: int | None = None
    validate_every: int | None = None
    log_every: int | None = None
    accumulate: int = 1
    params: Params | None = None
    seed: int | Array = 0
    compile: bool | Mapping[str, Any] = True
    dtype: Any = None
    parts: int = 1
    streams: int = 1
    keep_losses: bool = True
    keep_best: bool = False
    reduce: Reducer = "mean"
    validation_reduce: Reducer = "mean"
    averaged: bool = False
    sync: str = "async"
    steps_per_call: int = 1
    nonfinite: str = "raise"
    resume: Any = None

    def is_over(self, epoch: int, step: int) -> bool:
        """Tell whether a run that begins this epoch after so many steps has done all that it was asked for."""
        return step >= self.steps if self.steps is not None else epoch >= (self.epochs or 0)

    def steps_left(self, step: int) -> int | None:
        """Return how many steps are left after so many; None where the number of epochs says how long the run is."""
        return None if self.steps is None else max(self.steps - step, 0)

    def shaped(self, task: Task) -> Plan:
        """Return the plan with batches shaped as the task wants them."""
        sets = {name: shaped(data, task) for name, data in self.validation.items()}
        return replace(self, train=shaped(self.train, task), validation=FrozenDict(sets))


def plan(train: Any, only: Iterable[str], options: Mapping[str, Any]) -> Plan:
    """Return the plan of a run. TypeError or ValueError, with candidates, for options that are wrong.

    >>> plan([1, 2], (), {"sync": "asynch"})
    Traceback (most recent call last):
    ValueError: unknown sync 'asynch': did you mean 'async'? known: async, step, epoch, none
    """
    if isinstance(only, str):
        raise TypeError(f"only is a collection of names of events; for one of them give only=({only!r},)")
    wanted = frozenset(event_name(name) for name in only)
    given = checked_options(options)
    if isinstance(train, Splits):
        train, given = train.train, {"validation": _validation_sets(train.validation), **given}
    if given.get("validate_every") is not None and not given.get("validation"):
        raise ValueError("validate_every says when to validate, and there is no validation data: validation=…")
    if given.get("steps") is None:
        given["epochs"] = 1 if given.get("epochs") is None else given["epochs"]
    return Plan(as_dataset(train), wanted, **given)


def checked_options(options: Mapping[str, Any], *, beside: Iterable[str] = ()) -> dict[str, Any]:
    """Return options of a run, validation data as sets by name; an error for those that are wrong, with candidates.

    `beside` names the other options of the caller, which are candidates too.
    """
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(unknown("option", name, [*Options.__annotations__, *beside]))
    given = dict(options)
    _check_counts(given)
    check_options("a run", given, _FLAGS)
    for name, known in (("sync", _SYNCS), ("nonfinite", _NONFINITE)):
        if name in given and given[name] not in known:
            raise ValueError(unknown(name, str(given[name]), known))
    for name in ("reduce", "validation_reduce"):
        checked_reducer(given.get(name, "mean"), name)
    check_step_options(given.get("compile", True), given.get("dtype"))
    rng.key(given.get("seed", 0))
    check_source(given.get("resume"))
    if given.get("params") is not None:
        check_tree(given["params"])
    if "validation" in given:
        given["validation"] = _validation_sets(given["validation"])
    return given


def merged(options: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a run with later ones before them; a later length takes the place of any other.

    >>> merged({"epochs": 3, "seed": 1}, {"steps": 100})
    {'seed': 1, 'steps': 100}
    """
    length = {"epochs", "steps"} if {"epochs", "steps"} & later.keys() else set()
    return {name: value for name, value in options.items() if name not in length} | dict(later)


def _check_counts(given: dict[str, Any]) -> None:
    """Check the options that are counts, and how they go together."""
    for name, least in _COUNTS.items():
        missing = given.get(name) is None and (name in _MAY_BE_NONE or name not in given)
        if not missing and not is_count(given[name], least=least):
            raise ValueError(f"{name} is a count, {least} or more; got {given[name]!r}")
    if given.get("epochs") is not None and given.get("steps") is not None:
        raise ValueError(f"a run is as long as epochs={given['epochs']} or steps={given['steps']} says: give one")
    if given.get("accumulate", 1) > 1 and given.get("steps_per_call", 1) > 1:
        raise ValueError(
            "accumulate takes several batches in a step, and steps_per_call several steps in a call: give one of them"
        )


def _validation_sets(given: Any) -> Mapping[str, Dataset]:
    """Return validation sets by name; a single one has the name "". ValueError for a name that is no identifier.

    >>> list(_validation_sets([1, 2])), list(_validation_sets({"easy": [1], "hard": [2]}))
    ([''], ['easy', 'hard'])
    """
    if given is None:
        return FrozenDict()
    if not isinstance(given, Mapping):
        return FrozenDict({"": as_dataset(given)})
    if not given:
        raise ValueError("validation={} names no sets: give one or more, or None")
    for name in given:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"validation sets have names that can be part of others, such as 'hard'; got {name!r}")
    return FrozenDict({name: as_dataset(data) for name, data in given.items()})


def shaped(data: Dataset, task: Task) -> Dataset:
    """Return data with batches as a task wants them.

    >>> from mlx_fp.task._task import classification
    >>> list(shaped(as_dataset([{"input": 1, "label": 2}]), classification()))
    [{'x': 1, 'y': 2}]
    """
    return data if task.collate is None else collate(task.collate)(data)
