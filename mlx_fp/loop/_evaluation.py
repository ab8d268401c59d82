"""Evaluation of parameters on data, batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import NamedTuple

from ..compile._evaluation import queue
from ..core._errors import placed_at
from ..core._frozen import FrozenDict
from ..core._types import Array, Batch, Params, State
from ..data import Cursor, Dataset, Splits, as_dataset
from ..data._share import Share
from ..step._evaluate import EvalStep
from ..step._rows import example_count
from ..task._folds import merged, values
from ._link import Alone, Link
from ._series import Series
from ._totals import (
    IN_FLIGHT,
    READ_AT_ONCE,
    Means,
    Read,
    Reducer,
    Sums,
    add,
    check_names,
    close,
    read,
    reserved_names,
    wait_for_oldest,
)

__all__ = ["EvaluatedBatch", "as_test_data", "evaluate_batches", "names_in_logs"]


_ALONE = Alone()


class EvaluatedBatch(NamedTuple):
    """An evaluated batch, with its number from 0 and its logs. The sums do not count it yet."""

    number: int
    batch: Batch
    logs: State


def evaluate_batches(
    step: EvalStep,
    params: Params,
    data: Dataset,
    *,
    reduce: Reducer = "mean",
    in_flight: int | None = IN_FLIGHT,
    epoch: int = 0,
    kind: str = "validation",
    link: Link = _ALONE,
) -> Generator[EvaluatedBatch, None, Means]:
    """Evaluate every batch of the data. Yield each batch before the sums count it, and return the means."""
    state, sums, names = step.init(), Sums(read=Read(counted=Series() if callable(reduce) else None)), dict[str, None]()
    reserved, flight = reserved_names(step.metrics), deque[Array]()
    with closing(link.open(data, Cursor(epoch), kind)) as batches:
        for share in batches:
            batch, counts, total = share[:3] if isinstance(share, Share) else (share, True, None)
            after, logs, weights = step.weighted(params, state, batch)
            state, weights = (after, weights) if counts else (state, dict.fromkeys(weights, 0))
            queue(state, logs)
            yield EvaluatedBatch(sums.batches, batch, logs)
            if not sums.batches:
                check_names(logs, reserved)
            sums = add(sums, logs, weights, example_count(batch) if total is None else total)
            names |= dict.fromkeys(weights)
            if in_flight is not None:
                flight.append(logs["loss"])
                wait_for_oldest(flight, in_flight)
                sums = read(sums, keep=False, leave=in_flight) if sums.queued >= READ_AT_ONCE else sums
        sums = read(sums, keep=False)
        pairs = {name: sums.read.figures.get(name, (0.0, 0.0)) for name in names}  # in all processes the same names
        figures, state = link.evaluated(pairs, state, partial(merged, step.metrics))
        counting = {name: pair for name, pair in figures.items() if pair[1]}
        sums = sums._replace(read=sums.read._replace(figures=FrozenDict(counting)))
        with placed_at(stage="figures"):
            return close(sums, data, values(step.metrics, state), reduce)


def as_test_data(test: object, taker: str) -> Dataset:
    """Return test data as a dataset: of `splits` the test split.

    >>> as_test_data([(1, 2)], "evaluate")
    source(list of 1)
    """
    if isinstance(test, Splits):
        if test.test is None:
            raise ValueError(f"{taker} reads the test split, and these splits have none")
        return test.test
    return as_dataset(test)


def names_in_logs(step: EvalStep, params: Params, data: Dataset) -> list[str]:
    """List the figures that the loss reports. The loss is traced on the first batch, and nothing is computed."""
    with closing(data.open()) as batches:
        traced = [step(params, step.init(), batch) for batch in islice(batches, 1)]
    return [name for _, logs in traced for name in logs if name != "loss"]
