"""Every optimiser of mlx.optimizers by its snake_case name, with its own arguments, and every schedule.

A schedule is a function of the step, given in place of a rate. Options that no optimiser or schedule can have, such as
a rate below 0 or NaN, are an error where they are given. As in MLX, `adam` and `adamw` leave the bias of their
moments uncorrected unless `bias_correction=True`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from ..core._mlx import mlx_optimizers
from ..core._options import check_options
from ..core._signature import arguments
from ._optimizer import Optimizer, lift
from ._rules import SCHEDULES

__all__ = [
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "cosine_decay",
    "exponential_decay",
    "join_schedules",
    "linear_schedule",
    "lion",
    "muon",
    "rmsprop",
    "sgd",
    "step_decay",
]

P = ParamSpec("P")

Schedule = Callable[..., Any]


def _lifted(cls: Callable[P, mlx_optimizers.Optimizer]) -> Callable[P, Optimizer]:
    def make(*args: P.args, **kwargs: P.kwargs) -> Optimizer:
        return lift(cls, *args, **kwargs)

    make.__doc__ = f"Make an Optimizer of `mlx.optimizers.{cls.__name__}`, with its arguments.\n\n{cls.__doc__}"
    make.__name__ = make.__qualname__ = cls.__name__
    make.__wrapped__ = cls  # type: ignore[attr-defined]  # its signature is the class's
    return make


def _checked(schedule: Callable[P, Schedule]) -> Callable[P, Schedule]:
    @wraps(schedule)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        check_options(schedule.__name__, arguments(schedule, args, kwargs), SCHEDULES)
        return schedule(*args, **kwargs)

    return make


adadelta = _lifted(mlx_optimizers.AdaDelta)
adafactor = _lifted(mlx_optimizers.Adafactor)
adagrad = _lifted(mlx_optimizers.Adagrad)
adam = _lifted(mlx_optimizers.Adam)
adamax = _lifted(mlx_optimizers.Adamax)
adamw = _lifted(mlx_optimizers.AdamW)
lion = _lifted(mlx_optimizers.Lion)
muon = _lifted(mlx_optimizers.Muon)
rmsprop = _lifted(mlx_optimizers.RMSprop)
sgd = _lifted(mlx_optimizers.SGD)

cosine_decay = _checked(mlx_optimizers.cosine_decay)
exponential_decay = _checked(mlx_optimizers.exponential_decay)
join_schedules = _checked(mlx_optimizers.join_schedules)
linear_schedule = _checked(mlx_optimizers.linear_schedule)
step_decay = _checked(mlx_optimizers.step_decay)
