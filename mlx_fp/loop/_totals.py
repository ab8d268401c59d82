"""The sums of an epoch as a value; the logs of steps are read late, so that the loop does not wait for the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite, nan
from typing import Any, NamedTuple

from ..core._errors import located, unknown
from ..core._frozen import FrozenDict
from ..core._signature import name_of, returned_number
from ..core._types import Array, State
from ..data import Dataset
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
"""What the loss of an epoch may be of those of its batches; the mean is weighted by examples."""

IN_FLIGHT = 2
"""How many steps may be queued on the device before the loop waits for the oldest."""

READ_AT_ONCE = 64
"""How many logs of steps are read into the sums at once; each is looked at before, as soon as it is there."""


def checked_reducer(reduce: Reducer, option: str = "reducer") -> Reducer:
    """Return a reducer, or ValueError with candidates for a name that is none.

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
    """For the loss and each figure, the total and the weight over the updates that count."""
    total: float = 0.0
    """The sum of the losses that count."""
    last: float = 0.0
    """The last loss that counts."""
    counted: Series | None = None
    """The losses that count, where a function reduces them."""
    losses: Series = Series()
    """The losses of all updates of the run, where they are kept."""


class Sums(NamedTuple):
    """The sums of an epoch, and the logs of its last updates, which are still on the device."""

    batches: int = 0
    updates: int = 0
    examples: int = 0
    queued: int = 0
    """How many updates have logs that have not been read."""
    queue: Any = None
    """Those logs as pairs `(the older ones, newest)`: to add one copies nothing. See `Entry`."""
    read: Read = Read()

    @property
    def losses(self) -> Series:
        """The losses of all updates of the run that have been read."""
        return self.read.losses


Entry = tuple[State, State, int, int]
"""An update whose logs have not been read, a plain tuple because each step makes one.

Its logs; the weight of each of them that is a mean, others being in no sum; the numbers of its first batch and of
itself in the epoch.
"""


class Means(NamedTuple):
    """What an epoch came to: the means of figures, weighted by examples, and the values of metrics."""

    batches: int = 0
    figures: Mapping[str, float] = FrozenDict()
    metrics: Mapping[str, float] = FrozenDict()

    @property
    def loss(self) -> float | None:
        """The reduced loss, None where nothing was evaluated."""
        return self.figures.get("loss")

    def named(self) -> dict[str, float]:
        """Name the metrics, and the means of the further figures of the loss."""
        return {**self.metrics, **{name: mean for name, mean in self.figures.items() if name != "loss"}}


def reserved_names(metrics: Sequence[Metric]) -> frozenset[str]:
    """Return the names that a loss cannot report under, because rows or metrics have them."""
    fields = {*Row.__slots__, *StepRow.__slots__} - {"loss"}
    return frozenset(fields).union(metric.name for metric in metrics)


def check_names(logs: State, reserved: frozenset[str]) -> None:
    """Raise ValueError where the loss reports under a name that is taken."""
    taken = [name for name in logs if name in reserved or name.startswith("val_")]
    if taken:
        raise ValueError(f"a loss reports {', '.join(taken)}: rows and metrics have names like these")


def add(sums: Sums, logs: State, weights: State, count: int, batches: int = 1) -> Sums:
    """Count an update on so many examples and batches, and queue its logs; nothing is read.

    >>> add(Sums(), {"loss": mx.array(0.5)}, {"loss": 32}, 32)[:4]
    (1, 1, 32, 1)
    """
    seen, updates, rows, queued, queue, read = sums
    queue = (queue, (logs, weights, seen, updates))
    return Sums(seen + batches, updates + 1, rows + count, queued + 1, queue, read)


def wait_for_oldest(flight: deque[Array], in_flight: int) -> bool:
    """Take the losses that are too many out of those in flight, and wait for them; tell whether all are finite.

    >>> flight = deque([mx.array(float("nan")), mx.array(0.5)])
    >>> wait_for_oldest(flight, 2), wait_for_oldest(flight, 1), len(flight)
    (True, False, 1)
    """
    finite = True
    while len(flight) > in_flight:
        finite = isfinite(float(flight.popleft().item())) and finite  # type: ignore[arg-type]
    return finite


def read(sums: Sums, *, keep: bool, leave: int = 0, leave_out: Callable[[Entry, float], bool] | None = None) -> Sums:
    """Read all queued logs but the newest `leave` into the sums, the oldest first, which waits for the device.

    Args:
        sums: the sums of an epoch.
        keep: whether to keep the loss of each update.
        leave: how many updates stay in the queue.
        leave_out: is given an update and its loss that is not finite, and says whether the update is left out.
    """
    entries = entries_of(sums)
    taken = entries[: max(len(entries) - leave, 0)]
    figures, total, last, counted, losses = sums.read
    totals = {name: pair[0] for name, pair in figures.items()}
    weighed = {name: pair[1] for name, pair in figures.items()}
    kept, counting = list[float](), list[float]()
    for entry in taken:
        logs, weights, *_ = entry
        loss = logs["loss"].item()
        kept.append(loss)
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
                weighed[name] = weighed.get(name, 0.0) + number
    done = Read(
        FrozenDict({name: (totals[name], weighed[name]) for name in totals}),
        sum(counting, total),
        counting[-1] if counting else last,
        None if counted is None else counted.extend(counting),
        losses.extend(kept) if keep else losses,
    )
    return sums._replace(queued=len(entries) - len(taken), queue=queue_of(entries[len(taken) :]), read=done)


def is_empty(entry: Entry) -> bool:
    """Tell whether nothing counts in a batch, so that its loss has no weight."""
    weight = entry[1].get("loss", 1)
    return not (weight if isinstance(weight, (int, float)) else weight.item())


def next_epoch(sums: Sums) -> Sums:
    """Return empty sums for the next epoch, which keep the losses of the run.

    >>> next_epoch(Sums(batches=3, read=Read(losses=Series().extend([0.5])))).losses.values()
    [0.5]
    """
    counted = None if sums.read.counted is None else Series()
    return Sums(read=Read(counted=counted, losses=sums.read.losses))


def close(sums: Sums, data: Dataset, metrics: Mapping[str, float], reduce: Reducer) -> Means:
    """Return the means of an epoch, of sums with an empty queue. ValueError when there was no batch."""
    if not sums.batches:
        raise ValueError(
            f"an epoch of {data!r} gave no batch; it needs at least one, and a stream's factory must return "
            "a fresh iterable each time"
        )
    figures = {name: total / weight if weight else nan for name, (total, weight) in sums.read.figures.items()}
    counts = sums.read.figures.get("loss", (0.0, 0.0))[1]
    loss = _reduced(sums.read, figures["loss"], reduce) if counts else nan  # a sum over nothing is no figure
    return Means(sums.batches, FrozenDict({**figures, "loss": loss}), metrics)


def queue_of(entries: Iterable[Entry]) -> Any:
    """Return the queue of updates, the oldest first."""
    queue: Any = None
    for entry in entries:
        queue = (queue, entry)
    return queue


def entries_of(sums: Sums) -> list[Entry]:
    """List the updates whose logs have not been read, the oldest first."""
    queue, entries = sums.queue, []
    while queue is not None:
        queue, entry = queue
        entries.append(entry)
    entries.reverse()
    return entries


def _reduced(read: Read, mean: float, reduce: Reducer) -> float:
    if callable(reduce):
        with located(reducer=name_of(reduce)):
            given = reduce((read.counted or Series()).values())
        return returned_number(given, f"reducer {name_of(reduce)!r} returns a number for a list of losses")
    return {"mean": mean, "sum": read.total, "last": read.last}[reduce]
