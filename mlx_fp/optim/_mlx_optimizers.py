"""Every optimiser of mlx.optimizers by its snake_case name, with its own arguments, and every schedule.

A schedule is a function of the step that takes the place of a rate: `sgd(cosine_decay(0.1, 100))`, for example. An
option that no optimiser or schedule can have, such as a rate below 0 or NaN, is an error in the call. As in MLX, `adam`
and `adamw` do not correct the bias of their moments unless `bias_correction=True`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from ..core._mlx import mlx_optimizers
from ..core._mlx_text import lifted_text, mlx_page, show_as
from ..core._options import check_options
from ..core._signature import arguments
from ..core._types import Array
from ._optimizer import Optimizer, lift
from ._rules import SCHEDULES
from ._schedules import Schedule

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


def _constructor(cls: Callable[P, mlx_optimizers.Optimizer]) -> Callable[P, Optimizer]:
    """Return a function that takes the arguments of a class of mlx.optimizers, checks them, and makes an Optimizer."""

    def make(*args: P.args, **kwargs: P.kwargs) -> Optimizer:
        return lift(cls, *args, **kwargs)

    name = cls.__name__
    page = mlx_page("optimizers/_autosummary", f"mlx.optimizers.{name}")
    make.__doc__ = lifted_text(f"Make an Optimizer of `mlx.optimizers.{name}`.", page, cls)
    make.__name__ = make.__qualname__ = name
    make.__wrapped__ = cls  # type: ignore[attr-defined]  # the class that is lifted
    return show_as(make, cls, "Optimizer")


def _checked_schedule(schedule: Callable[P, Callable[..., Array]]) -> Callable[P, Schedule]:
    """Return a schedule of MLX that checks its options."""

    @wraps(schedule)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        check_options(schedule.__name__, arguments(schedule, args, kwargs), SCHEDULES)
        return schedule(*args, **kwargs)

    page = mlx_page("optimizers/_autosummary", f"mlx.optimizers.{schedule.__name__}")
    make.__doc__ = lifted_text(f"Make the schedule `mlx.optimizers.{schedule.__name__}`.", page, schedule)
    return make


adadelta = _constructor(mlx_optimizers.AdaDelta)
adafactor = _constructor(mlx_optimizers.Adafactor)
adagrad = _constructor(mlx_optimizers.Adagrad)
adam = _constructor(mlx_optimizers.Adam)
adamax = _constructor(mlx_optimizers.Adamax)
adamw = _constructor(mlx_optimizers.AdamW)
lion = _constructor(mlx_optimizers.Lion)
muon = _constructor(mlx_optimizers.Muon)
rmsprop = _constructor(mlx_optimizers.RMSprop)
sgd = _constructor(mlx_optimizers.SGD)

cosine_decay = _checked_schedule(mlx_optimizers.cosine_decay)
exponential_decay = _checked_schedule(mlx_optimizers.exponential_decay)
join_schedules = _checked_schedule(mlx_optimizers.join_schedules)
linear_schedule = _checked_schedule(mlx_optimizers.linear_schedule)
step_decay = _checked_schedule(mlx_optimizers.step_decay)
