"""Build the parts of an experiment before a run, so that a value that a part refuses is an error at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial, wraps

from ..core._types import Batch
from ..data import Dataset
from ..experiments._experiment import Experiment, override
from ..experiments._option_function import OptionFunction, takes_options
from ..loop._options import Options
from ..loop._plan import Plan, merge_options, plan
from ..loop._trainer import Trainer
from ._usage import UsageError, error_text

__all__ = ["built", "first_batch", "length_of", "planned"]

_REFUSALS = (TypeError, ValueError, LookupError, AttributeError, OSError)
"""The errors of a part that refuses a value."""


def built(target: Experiment, changes: dict[str, object]) -> Experiment:
    """Change settings of an experiment, build all of its parts, and return it. Its data are not made a second time.

    Raises:
        UsageError: A part refuses a changed setting. An error of an experiment without changes keeps its class.
    """
    changed = _with_data_made_once(override({**length_of(changes), **changes})(target))
    try:
        planned(changed)
    except _REFUSALS as error:
        if not changes:
            raise
        values = ", ".join(f"{path}={value!r}" for path, value in changes.items())
        raise UsageError(f"the experiment cannot be built with {values}: {error_text(error)}") from error
    return changed


def length_of(changes: Mapping[str, object]) -> dict[str, object]:
    """Return the further change that makes a run as long as the given epochs: the steps of an experiment come first.

    >>> length_of({"epochs": 3}), length_of({"epochs": 3, "steps": 5})
    ({'steps': None}, {})
    """
    return {"steps": None} if "epochs" in changes and "steps" not in changes else {}


def planned(target: Experiment, options: Options | None = None) -> tuple[Trainer, Plan]:
    """Return the trainer of an experiment, and the plan of its run without the checkpoints."""
    trainer = target.trainer
    length: Options = {"epochs": target.epochs} if target.steps is None else {"steps": target.steps}
    given = merge_options(trainer.options, {"seed": target.seed, **length, **(options or {})})
    return trainer, plan(target.splits, (), given)


def _with_data_made_once(target: Experiment) -> Experiment:
    """Return an experiment with the same settings, whose function of the data is called once in all."""
    part = target.data
    if not takes_options(part, "data"):
        return target
    if isinstance(part, partial):
        return replace(target, data=partial(_once(part.func), *part.args, **part.keywords))
    return replace(target, data=_once(part))


def _once(function: OptionFunction) -> Callable[..., object]:
    """Return a function with the same parameters, whose first result is the result of each call."""
    results: list[object] = []

    @wraps(function)
    def first(*args: object, **options: object) -> object:
        if not results:
            results.append(function(*args, **options))
        return results[0]

    return first


def first_batch(train: Dataset) -> Batch:
    """Return the first batch of training data. Data without a batch are a `UsageError`."""
    with closing(train.open()) as batches:
        for batch in batches:
            return batch
    raise UsageError(f"the training data have no batch: {train!r}")
