"""The sums of one epoch, read from the device late, so that the loop does not wait for each step."""

from __future__ import annotations

from collections import deque

from ..data import Dataset
from ..types import Batch, State

__all__ = ["Totals", "examples"]

_IN_FLIGHT = 2
"""How many steps may be queued on the device before the loop waits for the oldest."""


class Totals:
    """Means of what the steps log, weighted by examples; each loss goes on to `losses` in order, if it is given."""

    def __init__(self, losses: list[float] | None = None) -> None:
        self.batches = self.examples = 0
        self.means: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self._losses = losses
        self._sums: dict[str, float] = {}
        self._queue: deque[tuple[State, int]] = deque()

    def add(self, logs: State, batch: Batch) -> None:
        """Count a batch and queue its logs; reads those of the step before last."""
        count = examples(batch)
        self.batches += 1
        self.examples += count
        self._queue.append((logs, count))
        if len(self._queue) > _IN_FLIGHT:
            self._read()

    def close(self, data: Dataset, metrics: dict[str, float]) -> None:
        """Read what is queued, and the metrics. ValueError when there was no batch."""
        if not self.batches:
            raise ValueError(f"an epoch of {data!r} gave no batch; it needs at least one")
        while self._queue:
            self._read()
        self.means = {name: total / max(self.examples, 1) for name, total in self._sums.items()}
        self.metrics = metrics

    def named(self) -> dict[str, float]:
        """Name the metrics, and the means of what the loss reports beside itself."""
        return self.metrics | {name: mean for name, mean in self.means.items() if name != "loss"}

    def _read(self) -> None:
        logs, count = self._queue.popleft()
        for name, scalar in logs.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(scalar.item()) * count
        if self._losses is not None:
            self._losses.append(float(logs["loss"].item()))


def examples(batch: Batch) -> int:
    """Count the examples of a batch: the length of its first array's first axis, 1 for a scalar.

    >>> examples({"x": mx.zeros((32, 8)), "y": mx.zeros((32,))}), examples(mx.array(1.0))
    (32, 1)
    """
    while isinstance(batch, (dict, list, tuple)):
        batch = next(iter(batch.values() if isinstance(batch, dict) else batch), None)
    shape = getattr(batch, "shape", ())
    return int(shape[0]) if shape else 1
