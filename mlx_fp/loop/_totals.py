"""The sums of an epoch as a value. Logs of steps are read late, so that the loop does not wait for the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite, nan
from typing import NamedTuple, Optional

from ..core._errors import located, unknown
from ..core._frozen import FrozenDict
from ..core._signature import name_of, returned_number
from ..core._types import Array, State
from ..data import Dataset
from ..data._cursor import empty_epoch
from ..task._folds import Metric
from ._rows import Row, StepRow
from ._series import Series

__all__ = [
    "IN_FLIGHT",
    "READ_AT_ONCE",
    "REDUCERS",
    "Entry",
    "Means",
    "Read",
    "Reducer",
    "Sums",
    "add",
    "check_names",
    "checked_reducer",
    "close",
    "entries_of",
    "is_empty",
    "next_epoch",
    "queue_of",
    "read",
    "reserved_names",
    "wait_for_oldest",
]

Reducer = str | Callable[[list[float]], float]
"""A name of `REDUCERS`, or a function of the list of the losses of an epoch."""

REDUCERS = ("mean", "sum", "last")
"""The reductions of the losses of an epoch's steps to the loss of the epoch. The mean is weighted."""

IN_FLIGHT = 2
"""The number of steps that may be queued on the device before the loop waits for the oldest."""

READ_AT_ONCE = 64
"""The number of logs that are read into the sums at once. Each loss is checked before, as soon as it is computed."""


def checked_reducer(reduce: Reducer, option: str = "reducer") -> Reducer:
    """Return a reducer unchanged. Raise ValueError with candidates for an unknown name.

    >>> checked_reducer("men")
    Traceback (most recent call last):
    ValueError: unknown reducer 'men': did you mean 'mean'? known: mean, sum, last, or a function of the list of losses
    """
    if callable(reduce) or reduce in REDUCERS:
        return reduce
    raise ValueError(unknown(option, str(reduce), REDUCERS) + ", or a function of the list of losses")


class Read(NamedTuple):
    """The sums of the logs that have been read."""

    figures: Mapping[str, tuple[float, float]] = FrozenDict()
    """The total and the weight of the loss and of each figure, over the updates that count."""
    total: float = 0.0
    """The sum of the losses that count."""
    last: float = 0.0
    """The last loss that counts."""
    counted: Series | None = None
    """The losses that count; None unless a function reduces them."""
    losses: Series = Series()
    """The losses of all updates of the run, with `keep_losses=True`."""


class Sums(NamedTuple):
    """The sums of an epoch, and the queue of the logs of its newest updates, which are still on the device."""

    batches: int = 0
    updates: int = 0
    examples: int = 0
    queued: int = 0
    """The number of updates in the queue."""
    queue: Queue = None
    """The queue as pairs `(older entries, newest entry)`: adding an entry copies nothing."""
    read: Read = Read()

    @property
    def losses(self) -> Series:
        """The losses of all updates of the run that have been read."""
        return self.read.losses


Entry = tuple[State, State, int, int]
"""An update with unread logs: `(logs, weights, batch, update)`. It is a plain tuple because each step makes one.

`weights` has the weight of each log that is a mean; other logs are in no sum. `batch` and `update` are the indices of
the first batch and of the update in the epoch.
"""

Queue = Optional["tuple[Queue, Entry]"]
"""Entries as pairs `(older entries, newest entry)`; None: no entry."""


class Means(NamedTuple):
    """The weighted means of the figures of an epoch, and the values of its metrics."""

    batches: int = 0
    figures: Mapping[str, float] = FrozenDict()
    metrics: Mapping[str, float] = FrozenDict()

    @property
    def loss(self) -> float | None:
        """The reduced loss; None where nothing was evaluated."""
        return self.figures.get("loss")

    def named(self) -> dict[str, float]:
        """Return the metrics, and the means of the further figures of the loss, by name."""
        return {**self.metrics, **{name: mean for name, mean in self.figures.items() if name != "loss"}}


def reserved_names(metrics: Sequence[Metric]) -> frozenset[str]:
    """Return the names that rows or metrics have, and that a loss cannot use for its figures."""
    fields = {*Row.__slots__, *StepRow.__slots__} - {"loss"}
    return frozenset(fields).union(metric.name for metric in metrics)


def check_names(logs: State, reserved: frozenset[str]) -> None:
    """Raise ValueError where the loss reports a figure under a reserved name."""
    clashes = [name for name in logs if name in reserved or name.startswith("val_")]
    if clashes:
        raise ValueError(f"a loss reports {', '.join(clashes)}: rows and metrics have names like these")


def add(sums: Sums, logs: State, weights: State, count: int, batches: int = 1) -> Sums:
    """Count an update on `count` examples and `batches` batches, and queue its logs. Nothing is read.

    >>> add(Sums(), {"loss": mx.array(0.5)}, {"loss": 32}, 32)[:4]
    (1, 1, 32, 1)
    """
    seen, updates, rows, queued, queue, read = sums
    queue = (queue, (logs, weights, seen, updates))
    return Sums(seen + batches, updates + 1, rows + count, queued + 1, queue, read)


def wait_for_oldest(flight: deque[Array], in_flight: int) -> bool:
    """Remove the oldest losses in flight until `in_flight` are left, and wait for them. Tell whether all are finite.

    >>> flight = deque([mx.array(float("nan")), mx.array(0.5)])
    >>> wait_for_oldest(flight, 2), wait_for_oldest(flight, 1), len(flight)
    (True, False, 1)
    """
    finite = True
    while len(flight) > in_flight:
        finite = isfinite(float(flight.popleft().item())) and finite  # type: ignore[arg-type]  # MLX: item() is of any scalar type
    return finite


def read(sums: Sums, *, keep: bool, leave: int = 0, leave_out: Callable[[Entry, float], bool] | None = None) -> Sums:
    """Read all queued logs but the newest `leave` into the sums, oldest first. This waits for the device.

    Args:
        sums: The sums of an epoch.
        keep: Whether to keep the loss of each update.
        leave: The number of updates that stay in the queue.
        leave_out: `leave_out(entry, loss)` is called for a loss that is not finite. It tells whether to leave the
            update out of the sums.
    """
    entries = entries_of(sums)
    ready = entries[: max(len(entries) - leave, 0)]
    figures, total, last, counted, losses = sums.read
    totals = {name: pair[0] for name, pair in figures.items()}
    weight_sums = {name: pair[1] for name, pair in figures.items()}
    losses_read, counting = list[float](), list[float]()
    for entry in ready:
        logs, weights, *_ = entry
        loss = logs["loss"].item()
        losses_read.append(loss)
        empty = not isfinite(loss) and is_empty(entry)
        if not isfinite(loss) and not empty and leave_out is not None and leave_out(entry, loss):
            continue
        if not empty:
            counting.append(loss)
        for name, weight in weights.items():
            number = weight if isinstance(weight, (int, float)) else weight.item()
            if number:  # a mean over nothing is NaN
                mean = loss if name == "loss" else logs[name].item()
                totals[name] = totals.get(name, 0.0) + mean * number
                weight_sums[name] = weight_sums.get(name, 0.0) + number
    updated = Read(
        FrozenDict({name: (totals[name], weight_sums[name]) for name in totals}),
        sum(counting, total),
        counting[-1] if counting else last,
        None if counted is None else counted.extend(counting),
        losses.extend(losses_read) if keep else losses,
    )
    return sums._replace(queued=len(entries) - len(ready), queue=queue_of(entries[len(ready) :]), read=updated)


def is_empty(entry: Entry) -> bool:
    """Tell whether nothing counts in a batch: its loss has the weight 0."""
    weight = entry[1].get("loss", 1)
    return not (weight if isinstance(weight, (int, float)) else weight.item())


def next_epoch(sums: Sums) -> Sums:
    """Return empty sums for the next epoch. They keep the losses of the run.

    >>> next_epoch(Sums(batches=3, read=Read(losses=Series().extend([0.5])))).losses.values()
    [0.5]
    """
    counted = None if sums.read.counted is None else Series()
    return Sums(read=Read(counted=counted, losses=sums.read.losses))


def close(sums: Sums, data: Dataset, metrics: Mapping[str, float], reduce: Reducer) -> Means:
    """Return the means of an epoch from sums with an empty queue. Raise ValueError for an epoch without batches."""
    if not sums.batches:
        raise empty_epoch(data)
    figures = {name: total / weight if weight else nan for name, (total, weight) in sums.read.figures.items()}
    counts = sums.read.figures.get("loss", (0.0, 0.0))[1]
    loss = _reduced(sums.read, figures["loss"], reduce) if counts else nan  # a sum over nothing is no figure
    return Means(sums.batches, FrozenDict({**figures, "loss": loss}), metrics)


def queue_of(entries: Iterable[Entry]) -> Queue:
    """Return the queue of updates that are listed oldest first."""
    queue: Queue = None
    for entry in entries:
        queue = (queue, entry)
    return queue


def entries_of(sums: Sums) -> list[Entry]:
    """List the updates in the queue, oldest first."""
    queue, entries = sums.queue, []
    while queue is not None:
        queue, entry = queue
        entries.append(entry)
    entries.reverse()
    return entries


def _reduced(read: Read, mean: float, reduce: Reducer) -> float:
    if callable(reduce):
        with located(reducer=name_of(reduce)):
            reduced = reduce((read.counted or Series()).values())
        return returned_number(reduced, f"reducer {name_of(reduce)!r} returns a number for a list of losses")
    return {"mean": mean, "sum": read.total, "last": read.last}[reduce]
