"""The sums of an epoch as a value; the logs of steps are read late, so that the loop does not wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import isfinite, nan
from typing import Any, NamedTuple

from ..core._errors import unknown
from ..core._frozen import FrozenDict
from ..core._types import Batch, State
from ..data import Dataset
from ..task._folds import Metric
from ..tree._paths import leaves
from ._report import Row

__all__ = [
    "IN_FLIGHT",
    "REDUCERS",
    "Means",
    "Reducer",
    "Series",
    "Sums",
    "add",
    "check_names",
    "checked_reducer",
    "close",
    "examples",
    "next_epoch",
    "read_oldest",
    "reserved_names",
]

Reducer = str | Callable[[list[float]], float]
"""A name of `REDUCERS`, or a function of the list of the losses of an epoch."""

REDUCERS = ("mean", "sum", "last")
"""What the loss of an epoch may be of those of its batches; the mean is weighted by examples."""

IN_FLIGHT = 2
"""How many steps may be queued on the device before the loop waits for the oldest."""

_CHUNK = 64


def checked_reducer(reduce: Reducer) -> Reducer:
    """Return a reducer, or ValueError with candidates for a name that is none.

    >>> checked_reducer("men")
    Traceback (most recent call last):
    ValueError: unknown reducer 'men': did you mean 'mean'? known: mean, sum, last, or a function of the list of losses
    """
    if callable(reduce) or reduce in REDUCERS:
        return reduce
    raise ValueError(unknown("reducer", str(reduce), REDUCERS) + ", or a function of the list of losses")


class Series(NamedTuple):
    """A long list as a value: to append, or to take the first away, copies no more than a few.

    >>> series = Series().append(0.5).append(0.25)
    >>> series.values(), series.first(), series.rest().values()
    ([0.5, 0.25], 0.5, [0.25])
    """

    chunks: tuple[tuple[Any, ...], ...] = ()
    last: tuple[Any, ...] = ()
    gone: int = 0
    """How many of the first chunk have been taken away."""

    def append(self, value: Any) -> Series:
        """Return the list with one more value."""
        chunks, last, gone = self.chunks, (*self.last, value), self.gone
        return Series(chunks, last, gone) if len(last) < _CHUNK else Series((*chunks, last), (), gone)

    def first(self) -> Any:
        """Return the first value; IndexError where there is none."""
        return self.chunks[0][self.gone] if self.chunks else self.last[0]

    def rest(self) -> Series:
        """Return the list without its first value."""
        chunks, last, gone = self
        if not chunks:
            return Series((), last[1:])
        return Series(chunks, last, gone + 1) if gone + 1 < len(chunks[0]) else Series(chunks[1:], last)

    def values(self) -> list[Any]:
        """Return the values in order."""
        return [*chain.from_iterable(self.chunks), *self.last][self.gone :]


class Sums(NamedTuple):
    """The sums of an epoch, and the logs of its last steps, which are still on the device."""

    batches: int = 0
    examples: int = 0
    read: int = 0
    """The batches whose logs have been read."""
    left_out: int = 0
    """The examples of batches that do not count."""
    last: float = 0.0
    total: float = 0.0
    """The last loss that counts, and the sum of those that count."""
    sums: Mapping[str, float] = FrozenDict()
    """For each figure, the sum over batches of its value times their examples."""
    queue: Series = Series()
    """The logs that have not been read, and the examples of their batches."""
    counted: Series | None = None
    """The losses that count, where a function reduces them."""
    losses: Series = Series()
    """The losses of all steps of the run, where they are kept."""

    @property
    def queued(self) -> int:
        """How many batches have logs that have not been read."""
        return self.batches - self.read


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
        """Name the metrics, and the means of what the loss reports beside itself."""
        return {**self.metrics, **{name: mean for name, mean in self.figures.items() if name != "loss"}}


def reserved_names(metrics: Sequence[Metric]) -> frozenset[str]:
    """Return the names that a loss cannot report under, because rows or metrics have them."""
    return frozenset(Row.__slots__).union(metric.name for metric in metrics)


def check_names(logs: State, reserved: frozenset[str]) -> None:
    """Raise ValueError where the loss reports under a name that is taken."""
    taken = [name for name in logs if name in reserved or name.startswith("val_")]
    if taken:
        raise ValueError(f"a loss reports {', '.join(taken)}: rows and metrics have names like these")


def add(sums: Sums, logs: State, count: int) -> Sums:
    """Count a batch of so many examples and queue its logs; nothing is read.

    >>> add(Sums(), {"loss": mx.array(0.5)}, 32)[:3]
    (1, 32, 0)
    """
    batches, seen, read, left_out, last, total, by_name, queue, counted, losses = sums
    queue = queue.append((logs, count))
    return Sums(batches + 1, seen + count, read, left_out, last, total, by_name, queue, counted, losses)


def read_oldest(sums: Sums, keep: bool, leave_out: Callable[[int, float], bool] | None = None) -> Sums:
    """Read the oldest logs that are queued into the sums, which waits for the device.

    Args:
        sums: sums with at least one entry in the queue.
        keep: whether to keep the loss of each step.
        leave_out: is given the batch's number and a loss that is not finite, and says whether it is left out.
    """
    batches, seen, read, left_out, last, total, by_name, queue, counted, losses = sums
    logs, count = queue.first()
    loss = logs["loss"].item()
    losses = losses.append(loss) if keep else losses
    if leave_out is not None and not isfinite(loss) and leave_out(read, loss):
        after = (left_out + count, last, total, by_name)
    else:
        after = (left_out, loss, total + loss, _added(by_name, logs, loss, count))
        counted = None if counted is None else counted.append(loss)
    return Sums(batches, seen, read + 1, *after, queue.rest(), counted, losses)


def next_epoch(sums: Sums) -> Sums:
    """Return empty sums for the next epoch, which keep the losses of the run.

    >>> next_epoch(Sums(batches=3, losses=Series().append(0.5))).losses.values()
    [0.5]
    """
    return Sums(counted=None if sums.counted is None else Series(), losses=sums.losses)


def close(sums: Sums, data: Dataset, metrics: Mapping[str, float], reduce: Reducer) -> Means:
    """Return what an epoch came to, of sums with an empty queue. ValueError when there was no batch."""
    if not sums.batches:
        raise ValueError(
            f"an epoch of {data!r} gave no batch; it needs at least one, and a stream's factory must return "
            "a fresh iterable each time"
        )
    counted = max(sums.examples - sums.left_out, 1)
    figures = {name: total / counted for name, total in sums.sums.items()} or {"loss": nan}
    return Means(sums.batches, FrozenDict({**figures, "loss": _reduced(sums, figures["loss"], reduce)}), metrics)


def examples(batch: Batch) -> int:
    """Count the examples of a batch: the length of the first axis of its first array that has one, else 1.

    >>> examples({"rate": 0.5, "x": mx.zeros((32, 8)), "y": mx.zeros((32,))}), examples(mx.array(1.0))
    (32, 1)
    """
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (tuple, list)) else (batch,)
    for part in parts:  # no walk over the tree for the usual batch
        if getattr(part, "shape", ()):
            return int(part.shape[0])
        break
    return next((int(leaf.shape[0]) for leaf in leaves(batch) if getattr(leaf, "shape", ())), 1)


def _added(by_name: Mapping[str, float], logs: State, loss: float, count: int) -> Mapping[str, float]:
    """Return the sums of figures with those of a batch."""
    now = {
        name: by_name.get(name, 0.0) + (loss if name == "loss" else scalar.item()) * count
        for name, scalar in logs.items()
    }
    return {**by_name, **now}


def _reduced(sums: Sums, mean: float, reduce: Reducer) -> float:
    if callable(reduce):
        return float(reduce((sums.counted or Series()).values()))
    return {"mean": mean, "sum": sums.total, "last": sums.last}[reduce]
