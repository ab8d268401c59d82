"""Train variants of an experiment together, as members of one compiled step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from ..across._world import ALONE
from ..core._options import number
from ..data import Splits
from ..loop._lockstep import PARKED, in_lockstep, parked_run
from ..loop._options import Options
from ..loop._plan import Plan, merge_options, plan
from ..loop._report import Report
from ..loop._signals import graceful_stop
from ..loop._starting import make_step, with_skips
from ..loop._trainer import Trainer
from ..step._member_record import Members
from ..step._member_step import MemberStep, Stack
from ..step._members import members_of
from ..step._protocol import Step
from ..step._train_step import TrainStep
from ._experiment import Experiment, override
from ._run import options_of_run

__all__ = ["Variant", "check_together", "train_together"]

_NUMBER = number()
_OPTIMIZER = "optimizer."
_REFUSED: Mapping[str, object] = {"accumulate": 1, "steps_per_call": 1, "parts": 1, "streams": 1, "update": "at_end"}
"""Options that members which train together cannot have, with the only value."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of an experiment, its changed settings, and the options of its run."""

    case: Mapping[str, object]
    target: Experiment
    options: Options


def check_together(cases: Sequence[Mapping[str, object]], options: Mapping[str, Any]) -> None:
    """Refuse settings and options that differ in more than numbers of the optimiser and seeds.

    Raises:
        ValueError: The message names the setting or the option.
    """
    for case in cases:
        for path, value in case.items():
            if path == "seed":
                continue
            if not path.startswith(_OPTIMIZER):
                raise ValueError(
                    f"trials that train together have one shape and one order of data; {path!r} may differ between "
                    "them: sweep it with together=False. Numbers of the optimiser and seeds may differ"
                )
            if not _NUMBER.holds(value):
                raise ValueError(f"{path} is {value!r}; settings of trials that train together are numbers")
    for name, usual in _REFUSED.items():
        if options.get(name, usual) != usual:
            raise ValueError(
                f"{name}={options[name]!r} is for trials that train alone: leave it out, or together=False"
            )
    if options.get("across", ALONE).size > 1:
        raise ValueError("trials that train together train in one process: leave across out, or together=False")


def train_together(variants: Sequence[Variant]) -> tuple[Members, list[Report | Exception]]:
    """Train variants in lockstep. Return their members, and for each the report, or the error that ended it."""
    splits = variants[0].target.splits
    trainers = [variant.target.trainer for variant in variants]
    plans = [_plan(each, trainer, splits) for each, trainer in zip(variants, trainers, strict=True)]
    for trainer, planned in zip(trainers, plans, strict=True):
        check_together((), {name: getattr(planned, name) for name in (*_REFUSED, "across")})
        if trainer.step is not None:
            raise ValueError("trials that train together take the step of train_step, and with_step gives another one")
    many = _members(variants, trainers, plans)
    stack = Stack(many)
    with graceful_stop() as signals:
        runs = [
            parked_run(
                replace(trainer, step=_maker(MemberStep(index, step, stack))),
                planned,
                signals,
                partial(stack.park, index),
            )
            for index, (trainer, planned, step) in enumerate(zip(trainers, plans, many.steps, strict=True))
        ]
        return many, in_lockstep(runs, lambda: stack.failure is not None)


def _plan(variant: Variant, trainer: Trainer, splits: Splits) -> Plan:
    options = options_of_run(variant.target, variant.options)
    return plan(splits, PARKED, merge_options(trainer.options, options))


def _members(variants: Sequence[Variant], trainers: Sequence[Trainer], plans: Sequence[Plan]) -> Members:
    """Return the members whose steps the runs take."""
    pairs = zip(trainers, plans, strict=True)
    steps = tuple(cast(TrainStep, make_step(with_skips(trainer, each), each)) for trainer, each in pairs)
    paths = [path for path in variants[0].case if path.startswith(_OPTIMIZER)]
    settings = {path: [cast(float, variant.case[path]) for variant in variants] for path in paths}

    def make(**values: object) -> TrainStep:
        trainer = override(values)(variants[0].target).trainer
        return cast(TrainStep, make_step(with_skips(trainer, plans[0]), plans[0]))

    return members_of(steps, make if settings else steps[0], settings, "shared")


def _maker(step: MemberStep) -> Callable[..., Step]:
    """Return the function by which a run makes its step."""
    return lambda *parts, **options: cast(Step, step)
