"""Evaluation of parameters on data, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from ..core._mlx import mx
from ..core._types import Batch, Params, State
from ..data import Cursor, Dataset
from ..step._evaluate import EvalStep
from ..task._folds import values
from ._totals import Totals

__all__ = ["logged", "validated"]


def validated(
    step: EvalStep, params: Params, data: Dataset, totals: Totals, *, epoch: int = 0, kind: str = "validation"
) -> Iterator[tuple[Batch, State]]:
    """Take every batch of the data into `totals`, in evaluation mode; yield each, before it counts, with its logs."""
    state = step.init()
    with closing(data.open(Cursor(epoch), kind=kind)) as batches:
        for batch in batches:
            state, logs = step(params, state, batch)
            mx.async_eval(state, logs)
            yield batch, logs
            totals.add(logs, batch)
    totals.close(data, values(step.metrics, state))


def logged(step: EvalStep, params: Params, data: Dataset) -> list[str]:
    """Name what the loss reports beside itself, by tracing it on the first batch: nothing is computed."""
    with closing(data.open()) as batches:
        traced = [step(params, step.init(), batch) for batch in islice(batches, 1)]
    return [name for _, logs in traced for name in logs if name != "loss"]
