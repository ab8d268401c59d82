"""The sums of one epoch, read from the device late, so that the loop does not wait for each step."""

from __future__ import annotations

from collections import deque

from ..data import Dataset
from ..tree import leaves
from ..types import Batch, State
from .report import Row

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
        """Read what is queued, and the metrics. ValueError when there was no batch, or two figures have one name."""
        if not self.batches:
            raise ValueError(
                f"an epoch of {data!r} gave no batch; it needs at least one, and a stream's factory must return "
                "a fresh iterable each time"
            )
        while self._queue:
            self._read()
        taken = sorted(self._sums.keys() & {*metrics, *Row.__slots__})
        if taken or any(name.startswith("val_") for name in self._sums):
            raise ValueError(f"a loss reports {', '.join(taken or self._sums)}: rows and metrics have names like these")
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
    """Count the examples of a batch: the length of the first axis of its first array that has one, else 1.

    >>> examples({"rate": 0.5, "x": mx.zeros((32, 8)), "y": mx.zeros((32,))}), examples(mx.array(1.0))
    (32, 1)
    """
    return next((int(leaf.shape[0]) for leaf in leaves(batch) if getattr(leaf, "shape", ())), 1)
