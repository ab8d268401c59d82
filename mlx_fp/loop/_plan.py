"""The plan of a run: the checked options of `fit` and `events`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..across._world import ALONE, World
from ..checkpointing._resume import check_source
from ..compile import rng
from ..compile._evaluation import queue, wait_for
from ..core._errors import unknown
from ..core._frozen import FrozenDict
from ..core._options import check_options
from ..core._types import Array, Params
from ..core._user_path import user_path
from ..data import Dataset, Splits, as_dataset, collate
from ..nn._given import check_tree
from ..step._checks import check_options as check_step_options
from ..task._task import Task
from ._debugging import check_debug
from ._event_table import event_name
from ._options import OPTIONS
from ._report import params_of
from ._totals import Reducer, checked_reducer

__all__ = ["SYNC", "Plan", "checked_options", "collated_for", "merge_options", "plan"]

SYNC: Mapping[str, Callable[..., None]] = {"async": queue, "step": wait_for}
"""The functions that are called with the results of a step, by the value of `sync`. Other values have none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The checked options of a run."""

    train: Dataset
    yielded: frozenset[str]
    """The names of the events that the stream yields."""
    validation: Mapping[str, Dataset]
    """The validation sets by name. A single one has the name ""."""
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
    out: Path | None

    def is_over(self, epoch: int, step: int) -> bool:
        """Tell whether a run is complete, at the start of an epoch and after a number of steps."""
        return step >= self.steps if self.steps is not None else epoch >= (self.epochs or 0)

    def steps_left(self, step: int) -> int | None:
        """Return the number of remaining steps after `step` steps; None where the run has a number of epochs."""
        return None if self.steps is None else max(self.steps - step, 0)

    def collated_for(self, task: Task) -> Plan:
        """Return the plan with batches that the collate of the task has changed."""
        sets = {name: collated_for(data, task) for name, data in self.validation.items()}
        return replace(self, train=collated_for(self.train, task), validation=FrozenDict(sets))


def plan(train: object, only: Iterable[str], options: Mapping[str, object]) -> Plan:
    """Return the plan of a run. Raise TypeError or ValueError, with candidates, for wrong options.

    >>> plan([1, 2], (), {"sync": "asynch"})
    Traceback (most recent call last):
    ValueError: unknown sync 'asynch': did you mean 'async'? known: async, step, epoch, none
    """
    if isinstance(only, str):
        raise TypeError(f"only is a collection of names of events; for one of them give only=({only!r},)")
    yielded = frozenset(event_name(name) for name in only)
    checked = checked_options(options)
    if isinstance(train, Splits):
        splits, train = train, train.train
        checked = {"validation": _validation_sets(splits.validation), **checked}
    if checked.get("validate_every") is not None and not checked.get("validation"):
        raise ValueError("validate_every says when to validate, and there is no validation data: validation=…")
    if checked.get("steps") is None:
        checked["epochs"] = 1 if checked.get("epochs") is None else checked["epochs"]
    defaults = {name: option.default for name, option in OPTIONS.items()}
    values: dict[str, Any] = {**defaults, "validation": FrozenDict(), **checked}
    return Plan(as_dataset(train), yielded, **values)


def checked_options(options: Mapping[str, object], *, beside: Iterable[str] = ()) -> dict[str, Any]:
    """Return options of a run with validation data as sets by name. Raise an error with candidates for wrong ones.

    `beside` are the names of the caller's other options, which are candidates too.
    """
    for name in options:
        if name not in OPTIONS:
            raise TypeError(unknown("option", name, [*OPTIONS, *beside]))
    checked: dict[str, Any] = dict(options)
    check_options("a run", checked, {name: option.rule for name, option in OPTIONS.items() if option.rule})
    for name, value in checked.items():
        if (choices := OPTIONS[name].choices) and value not in choices:
            raise ValueError(unknown(name, str(value), choices))
    _check_exclusive(checked)
    check_debug(checked)
    if checked.get("across", ALONE).size > 1 and checked.get("validation_reduce", "mean") != "mean":
        raise ValueError("validation_reduce is the mean across processes: no process knows the loss of a whole batch")
    for name in ("reduce", "validation_reduce"):
        checked_reducer(checked.get(name, "mean"), name)
    check_step_options(checked.get("compile", True), checked.get("dtype"))
    rng.check_seed(checked.get("seed", 0))
    check_source(checked.get("resume"))
    if checked.get("params") is not None:
        checked["params"] = params_of(checked["params"])
        check_tree(checked["params"])
    if checked.get("out") is not None:
        checked["out"] = user_path(checked["out"])
    if "validation" in checked:
        checked["validation"] = _validation_sets(checked["validation"])
    return checked


def merge_options(options: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a run, of which later ones take precedence. A later length replaces any earlier one.

    >>> merge_options({"epochs": 3, "seed": 1}, {"steps": 100})
    {'seed': 1, 'steps': 100}
    """
    length = {"epochs", "steps"} if {"epochs", "steps"} & later.keys() else set()
    return {name: value for name, value in options.items() if name not in length} | dict(later)


def _check_exclusive(options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that exclude each other."""
    if options.get("epochs") is not None and options.get("steps") is not None:
        raise ValueError(f"a run is as long as epochs={options['epochs']} or steps={options['steps']} says: give one")
    if options.get("accumulate", 1) > 1 and options.get("steps_per_call", 1) > 1:
        raise ValueError(
            "accumulate takes several batches in a step, and steps_per_call several steps in a call: give one of them"
        )
    if options.get("accumulate", 1) > 1 and options.get("update") == "in_backward":
        raise ValueError('accumulate updates on several batches, and update="in_backward" during one: give one of them')


def _validation_sets(validation: object) -> Mapping[str, Dataset]:
    """Return validation sets by name. A single one has the name "". Raise ValueError for a name that is no identifier.

    >>> list(_validation_sets([1, 2])), list(_validation_sets({"easy": [1], "hard": [2]}))
    ([''], ['easy', 'hard'])
    """
    if validation is None:
        return FrozenDict()
    if not isinstance(validation, Mapping):
        return FrozenDict({"": as_dataset(validation)})
    if not validation:
        raise ValueError("validation={} names no sets: give one or more, or None")
    for name in validation:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"validation sets have names that can be part of others, such as 'hard'; got {name!r}")
    return FrozenDict({name: as_dataset(data) for name, data in validation.items()})


def collated_for(data: Dataset, task: Task) -> Dataset:
    """Return data with batches that the collate of a task has changed.

    >>> from mlx_fp.task._task import classification
    >>> list(collated_for(as_dataset([{"input": 1, "label": 2}]), classification()))
    [{'x': 1, 'y': 2}]
    """
    return data if task.collate is None else collate(task.collate)(data)
