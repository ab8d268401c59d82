"""Evaluation of parameters on data, batch by batch."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from ..core._mlx import mx
from ..core._types import Batch, Params, State
from ..data import Cursor, Dataset
from ..step._evaluate import EvalStep
from ..task._folds import values
from ._totals import (
    IN_FLIGHT,
    Means,
    Reducer,
    Series,
    Sums,
    add,
    check_names,
    close,
    examples,
    read_oldest,
    reserved_names,
)

__all__ = ["Evaluated", "evaluated", "names_in_logs"]


class Evaluated(NamedTuple):
    """A batch that was evaluated, with its number, its logs, and the sums before it counts."""

    number: int
    batch: Batch
    logs: State


def evaluated(
    step: EvalStep,
    params: Params,
    data: Dataset,
    *,
    reduce: Reducer = "mean",
    in_flight: float = IN_FLIGHT,
    epoch: int = 0,
    kind: str = "validation",
) -> Generator[Evaluated, None, Means]:
    """Evaluate every batch of the data; yield each before it counts, and return the means."""
    state, sums = step.init(), Sums(counted=Series() if callable(reduce) else None)
    reserved = reserved_names(step.metrics)
    with closing(data.open(Cursor(epoch), kind=kind)) as batches:
        for batch in batches:
            state, logs = step(params, state, batch)
            mx.async_eval(state, logs)
            yield Evaluated(sums.batches, batch, logs)
            if not sums.batches:
                check_names(logs, reserved)
            sums = add(sums, logs, examples(batch))
            sums = read_oldest(sums, keep=False) if sums.queued > in_flight else sums
        while sums.queued:
            sums = read_oldest(sums, keep=False)
        return close(sums, data, values(step.metrics, state), reduce)


def names_in_logs(step: EvalStep, params: Params, data: Dataset) -> list[str]:
    """Name the figures that the loss reports, by tracing it on the first batch: nothing is computed."""
    with closing(data.open()) as batches:
        traced = [step(params, step.init(), batch) for batch in islice(batches, 1)]
    return [name for _, logs in traced for name in logs if name != "loss"]
