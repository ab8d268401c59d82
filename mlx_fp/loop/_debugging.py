"""Find the layer and the operation behind a loss that is not finite, in a run with `debug=True`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core._types import Batch, Tree
from ..step._carried import Carried, Logged
from ..step._find_nonfinite import find_nonfinite
from ..step._statistics import is_finite
from ..step._train_step import TrainStep

__all__ = ["check_debug", "explain"]


def check_debug(options: Mapping[str, Any]) -> None:
    """Raise ValueError for options of a run with `debug=True` in which a step is not one batch in one process.

    >>> check_debug({"debug": True, "accumulate": 2})
    Traceback (most recent call last):
    ValueError: debug=True computes a step of one batch again, and accumulate=2 makes other steps
    """
    if not options.get("debug", False):
        return
    for name in ("accumulate", "steps_per_call"):
        if options.get(name, 1) > 1:
            raise ValueError(
                f"debug=True computes a step of one batch again, and {name}={options[name]} makes other steps"
            )
    if (across := options.get("across")) is not None and across.size > 1:
        raise ValueError("debug=True computes a step again in one process; leave across= out")
    if options.get("nonfinite", "raise") != "raise":
        raise ValueError(f"debug=True ends the run with an error; nonfinite={options['nonfinite']!r} does not")


def explain(step: object, before: Carried, batch: Batch, logged: Logged, result: Tree) -> None:
    """Raise FloatingPointError, with the first place that is not finite, if a step gave numbers that are not finite.

    This waits for the step. The numbers are the loss, unless nothing in the batch counts, and the result: gradients, or
    the parameters after the step. `before` is the state before the step.
    """
    if not isinstance(step, TrainStep):
        return
    logs, weights, _ = logged
    loss = float(logs["loss"])
    sound = math.isfinite(loss) or not float(weights["loss"])
    if sound and is_finite(result):
        return
    place = find_nonfinite(step, before.params, before.opt_state, batch)
    text = "computed again without compilation, the step is finite" if place is None else str(place)
    fault = f"the loss is {loss}" if not sound else f"the loss is {loss}, and the update is not finite"
    raise FloatingPointError(f"{fault}\n{text}")
