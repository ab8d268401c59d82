"""Warn about a Python number that changes outside a compiled loss: the loss keeps the value of its trace."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

from ..compile._constants import outer_numbers
from ..core._frozen import FrozenDict
from ._state import Loop

__all__ = ["OuterNumbers", "compare_outer"]

_EPOCHS = 4
"""The number of epochs of a run that begin with a comparison."""


class OuterNumbers(NamedTuple):
    """The outer numbers that the loss and the metrics read, at the start of an epoch."""

    traces: int = 0
    """The number of traces of the steps so far. A new trace reads the numbers again."""
    numbers: Mapping[str, object] = FrozenDict()
    epochs: int = 0


def compare_outer(loop: Loop, before: OuterNumbers) -> OuterNumbers:
    """Return the present numbers. Warn where one has changed since the previous epoch without a new trace."""
    if not loop.plan.compile or before.epochs == _EPOCHS:
        return before
    traces = loop.step.traces + loop.evaluate.traces
    functions = (loop.trainer.task.loss, *(metric.update for metric in loop.step.metrics))
    now = {name: value for fn in functions for name, value in outer_numbers(fn).items()}
    if traces == before.traces:
        pairs = ((name, value, now.get(name, value)) for name, value in before.numbers.items())
        changed = [name for name, old, new in pairs if new is not old and new != old]  # one NaN is not another value
        for name in changed:
            warnings.warn(
                f"the loss or a metric reads {name}, which went from {before.numbers[name]} to {now[name]}, and the "
                "compiled step keeps the value of its trace: give it as a leaf of the batch, or a buffer of the model",
                RuntimeWarning,
                stacklevel=2,
            )
        if changed:
            return before._replace(epochs=_EPOCHS)
    return OuterNumbers(traces, FrozenDict(now), before.epochs + 1)
