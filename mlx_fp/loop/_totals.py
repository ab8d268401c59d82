"""The sums of one epoch, read from the device late, so that the loop does not wait for each step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core._errors import unknown
from ..core._types import Batch, State
from ..data import Dataset
from ..task._folds import Metric
from ..tree._paths import leaves
from ._report import Row

__all__ = ["REDUCERS", "Reducer", "Totals", "checked_reducer", "examples"]

Reducer = str | Callable[[list[float]], float]
"""A name of `REDUCERS`, or a function of the list of the losses of an epoch."""

REDUCERS = ("mean", "sum", "last")
"""What the loss of an epoch may be of those of its batches; the mean is weighted by examples."""

IN_FLIGHT = 2
"""How many steps may be queued on the device before the loop waits for the oldest."""


def checked_reducer(reduce: Reducer) -> Reducer:
    """Return a reducer, or ValueError with candidates for a name that is none.

    >>> checked_reducer("men")
    Traceback (most recent call last):
    ValueError: unknown reducer 'men': did you mean 'mean'? known: mean, sum, last, or a function of the list of losses
    """
    if callable(reduce) or reduce in REDUCERS:
        return reduce
    raise ValueError(unknown("reducer", str(reduce), REDUCERS) + ", or a function of the list of losses")


class Totals:
    """Means of what the steps log, weighted by examples; each loss goes on to `losses` in order, if it is given."""

    def __init__(
        self,
        losses: list[float] | None = None,
        *,
        reduce: Reducer = "mean",
        in_flight: float = IN_FLIGHT,
        lost: Callable[[int, float], bool] | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Make empty sums; `lost(batch, loss)` hears of a loss that is not finite, and says whether to leave it out.

        The names of `metrics` are not for what the loss reports.
        """
        self.batches = self.examples = 0
        self._reserved = frozenset(Row.__slots__).union(m.name for m in metrics)
        self._lost, self._read_so_far, self._left_out = lost, 0, 0
        self.means: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self._all = losses
        self._reduce = reduce
        self._own: list[float] = []
        self._last = self._sum = 0.0
        self._sums: dict[str, float] = {}
        self._queue: deque[tuple[State, int]] = deque()
        self._in_flight = in_flight

    def add(self, logs: State, batch: Batch) -> None:
        """Count a batch and queue its logs; reads those that are due. ValueError when two figures have one name."""
        if not self.batches:
            self._check(logs)
        count = examples(batch)
        self.batches += 1
        self.examples += count
        self._queue.append((logs, count))
        if len(self._queue) > self._in_flight:
            self._read()

    def close(self, data: Dataset, metrics: dict[str, float]) -> None:
        """Read what is queued, and the metrics. ValueError when there was no batch."""
        if not self.batches:
            raise ValueError(
                f"an epoch of {data!r} gave no batch; it needs at least one, and a stream's factory must return "
                "a fresh iterable each time"
            )
        while self._queue:
            self._read()
        counted = max(self.examples - self._left_out, 1)
        self.means = {name: total / counted for name, total in self._sums.items()} if self._sums else {"loss": math.nan}
        self.means["loss"] = self._reduced()
        self.metrics = metrics

    def state(self) -> dict[str, Any]:
        """Return the sums so far, everything that is queued read first."""
        while self._queue:
            self._read()
        own = {"own": self._own, "last": self._last, "sum": self._sum, "sums": self._sums, "left_out": self._left_out}
        return {"batches": self.batches, "examples": self.examples, **own}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from sums of before."""
        self.batches, self.examples = state["batches"], state["examples"]
        self._own, self._last, self._sum = list(state["own"]), state["last"], state["sum"]
        self._sums, self._left_out = dict(state["sums"]), state["left_out"]
        self._read_so_far = self.batches

    def named(self) -> dict[str, float]:
        """Name the metrics, and the means of what the loss reports beside itself."""
        return self.metrics | {name: mean for name, mean in self.means.items() if name != "loss"}

    def _check(self, logs: State) -> None:
        taken = [name for name in logs if name in self._reserved or name.startswith("val_")]
        if taken:
            raise ValueError(f"a loss reports {', '.join(taken)}: rows and metrics have names like these")

    def _read(self) -> None:
        logs, count = self._queue.popleft()
        loss, batch = logs["loss"].item(), self._read_so_far
        self._read_so_far += 1
        if self._all is not None:
            self._all.append(loss)
        if self._lost is not None and not math.isfinite(loss) and self._lost(batch, loss):
            self._left_out += count
            return
        self._last, self._sum = loss, self._sum + loss
        if callable(self._reduce):
            self._own.append(loss)
        for name, scalar in logs.items():
            value = loss if name == "loss" else scalar.item()
            self._sums[name] = self._sums.get(name, 0.0) + value * count

    def _reduced(self) -> float:
        if callable(self._reduce):
            return float(self._reduce(self._own))
        return {"mean": self.means["loss"], "sum": self._sum, "last": self._last}[self._reduce]


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
