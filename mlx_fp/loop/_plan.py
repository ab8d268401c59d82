"""The plan of a run: the options of `fit` and `events`, checked when they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..checkpointing._resume import check_source
from ..compile import rng
from ..core._errors import unknown
from ..core._frozen import FrozenDict
from ..core._mlx import mx
from ..core._options import check_options
from ..core._types import Array, Params
from ..data import Dataset, Splits, as_dataset, collate
from ..nn._layer import check_tree
from ..step._checks import check_options as check_step_options
from ..task._task import Task
from ._event_table import event_name
from ._options import OPTIONS
from ._report import params_of
from ._totals import Reducer, checked_reducer

__all__ = ["SYNC", "Plan", "checked_options", "collated_for", "merge_options", "plan"]

SYNC: dict[str, Callable[..., Any]] = {"async": mx.async_eval, "step": mx.eval}
"""What is done with the results of a step, by the name of a `sync`; nothing for the other names."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's options, checked."""

    train: Dataset
    yielded: frozenset[str]
    """The events that the stream yields."""
    validation: Mapping[str, Dataset]
    """The validation sets by name; a single one has the name ""."""
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

    def is_over(self, epoch: int, step: int) -> bool:
        """Tell whether a run that begins this epoch after so many steps has done all that it was asked for."""
        return step >= self.steps if self.steps is not None else epoch >= (self.epochs or 0)

    def steps_left(self, step: int) -> int | None:
        """Return how many steps are left after so many; None where the number of epochs says how long the run is."""
        return None if self.steps is None else max(self.steps - step, 0)

    def collated_for(self, task: Task) -> Plan:
        """Return the plan with batches shaped as the task wants them."""
        sets = {name: collated_for(data, task) for name, data in self.validation.items()}
        return replace(self, train=collated_for(self.train, task), validation=FrozenDict(sets))


def plan(train: Any, only: Iterable[str], options: Mapping[str, Any]) -> Plan:
    """Return the plan of a run. TypeError or ValueError, with candidates, for options that are wrong.

    >>> plan([1, 2], (), {"sync": "asynch"})
    Traceback (most recent call last):
    ValueError: unknown sync 'asynch': did you mean 'async'? known: async, step, epoch, none
    """
    if isinstance(only, str):
        raise TypeError(f"only is a collection of names of events; for one of them give only=({only!r},)")
    yielded = frozenset(event_name(name) for name in only)
    given = checked_options(options)
    if isinstance(train, Splits):
        train, given = train.train, {"validation": _validation_sets(train.validation), **given}
    if given.get("validate_every") is not None and not given.get("validation"):
        raise ValueError("validate_every says when to validate, and there is no validation data: validation=…")
    if given.get("steps") is None:
        given["epochs"] = 1 if given.get("epochs") is None else given["epochs"]
    defaults = {name: option.default for name, option in OPTIONS.items()}
    return Plan(as_dataset(train), yielded, **{**defaults, "validation": FrozenDict(), **given})


def checked_options(options: Mapping[str, Any], *, beside: Iterable[str] = ()) -> dict[str, Any]:
    """Return options of a run, validation data as sets by name; an error for those that are wrong, with candidates.

    `beside` names the other options of the caller, which are candidates too.
    """
    for name in options:
        if name not in OPTIONS:
            raise TypeError(unknown("option", name, [*OPTIONS, *beside]))
    given = dict(options)
    check_options("a run", given, {name: option.rule for name, option in OPTIONS.items() if option.rule})
    for name, value in given.items():
        if (choices := OPTIONS[name].choices) and value not in choices:
            raise ValueError(unknown(name, str(value), choices))
    _check_together(given)
    for name in ("reduce", "validation_reduce"):
        checked_reducer(given.get(name, "mean"), name)
    check_step_options(given.get("compile", True), given.get("dtype"))
    rng.check_seed(given.get("seed", 0))
    check_source(given.get("resume"))
    if given.get("params") is not None:
        given["params"] = params_of(given["params"])
        check_tree(given["params"])
    if "validation" in given:
        given["validation"] = _validation_sets(given["validation"])
    return given


def merge_options(options: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a run with later ones before them; a later length takes the place of any other.

    >>> merge_options({"epochs": 3, "seed": 1}, {"steps": 100})
    {'seed': 1, 'steps': 100}
    """
    length = {"epochs", "steps"} if {"epochs", "steps"} & later.keys() else set()
    return {name: value for name, value in options.items() if name not in length} | dict(later)


def _check_together(given: Mapping[str, Any]) -> None:
    """Raise ValueError for options that exclude each other."""
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


def collated_for(data: Dataset, task: Task) -> Dataset:
    """Return data with batches as a task wants them.

    >>> from mlx_fp.task._task import classification
    >>> list(collated_for(as_dataset([{"input": 1, "label": 2}]), classification()))
    [{'x': 1, 'y': 2}]
    """
    return data if task.collate is None else collate(task.collate)(data)
