"""The memory that a run will need, measured on batches of few rows before the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Unpack

from ..core._bytes import bytes_text
from ..core._text import table
from ..core._types import Batch
from ..data import Dataset, Splits
from ..step._rows import example_count
from ._measuring import Meter, measuring
from ._options import Options, documented
from ._plan import Plan, checked_options, merge_options, plan
from ._trainer_record import Trainer, checked_trainer

__all__ = ["Memory", "memory", "metered", "predicted"]

_FRACTION = 8
"""The first measured batch has this part of the rows of the batch; the second has twice as many rows."""

_WORDS = {
    "parameters": "parameters that train",
    "frozen": "frozen parameters and buffers",
    "gradients": "gradients",
    "state": "state of the optimiser",
    "activations": "activations",
    "other": "other arrays of the process",
    "peak": "peak to expect",
}


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory that a run needs, in bytes. `str()` is a table. `memory` makes it.

    - `rows` is the number of rows of a batch.
    - `parameters` are those that train; `frozen` are the others and the buffers.
    - `gradients` have the size of the parameters that train.
    - `state` is the state of the step: mostly the memory of the optimiser.
    - `activations` is the part that grows with the rows, the batch itself included.
    - `other` is the memory of all other arrays in the process, for example the data.
    - `peak` is the peak of the process in a step. It is not the sum: a step frees activations before it needs memory
      for the update, and an update may need memory for a second copy of the state.
    """

    rows: int
    parameters: int
    frozen: int
    gradients: int
    state: int
    activations: int
    other: int
    peak: int

    def at(self, rows: int) -> Memory:
        """Return the memory of a run on batches with another number of rows."""
        activations = round(self.activations * rows / self.rows)
        return replace(self, rows=rows, activations=activations, peak=self.peak + activations - self.activations)

    def to_dict(self) -> dict[str, int]:
        """Return plain numbers."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = [(words, bytes_text(getattr(self, name))) for name, words in _WORDS.items()]
        return table([("memory", f"{self.rows:,} rows"), *sizes])


@documented
def memory(batch: object, **options: Unpack[Options]) -> Callable[[Trainer], Memory]:
    """Predict the memory of a run before the run, from steps on two small batches.

    The steps are the compiled steps of the run, as many in flight as in the run, on an eighth and a quarter of the rows
    of the batch. The peak is extrapolated along a line in the number of rows; each row keeps its length. Parameters are
    drawn as in the run, and are dropped at the end. MLX's counter of the peak memory starts again.

    Args:
        batch: A batch, as the loss takes it, or data as for `fit`, of which the first batch is read.

    Returns:
        A function from a trainer to a `Memory`.

    Raises:
        TypeError: For an unknown option or a value of a wrong type, with candidates.
        ValueError: For a value out of range, or data without a batch.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn, optim, trainer, with_optimizer
    >>> target = with_optimizer(optim.adam(1e-3))(trainer(nn.linear(64, 8), lambda model, x: model(x).mean()))
    >>> needed = memory(mx.ones((128, 64)))(target)
    >>> needed.rows, needed.parameters, needed.gradients, needed.state
    (128, 2080, 2080, 4180)
    """
    checked_options(options)

    def predict(target: Trainer) -> Memory:
        with metered(checked_trainer(target, "memory"), batch, options) as (rows, planned, meter):
            return predicted(rows, planned, meter)

    return predict


@contextmanager
def metered(target: Trainer, batch: object, options: Options) -> Iterator[tuple[int, Plan, Meter]]:
    """Within, yield the number of rows of a batch, the plan of a run with such batches, and its meter."""
    data = batch if isinstance(batch, (Dataset, Splits)) else [batch]
    planned = plan(data, (), merge_options(target.options, options)).collated_for(target.task)
    with closing(planned.train.open()) as batches:
        first: list[Batch] = list(islice(batches, 1))
    if not first:
        raise ValueError("memory is measured on the first batch of the data, and there is none")
    with measuring(target, planned, first[0]) as meter:
        yield example_count(first[0]), planned, meter


def predicted(rows: int, planned: Plan, meter: Meter) -> Memory:
    """Measure two small batches, and return the memory on batches with so many rows."""
    cuts = planned.parts * planned.streams
    few = max(min(2, rows), rows // _FRACTION, 2 * cuts if cuts > 1 else 1)  # a part has two rows or more
    low, high = meter.step(few), meter.step(2 * few)
    growth = high - low
    if meter.gradients is not None:  # the update hides the activations of few rows in the peak of a whole step
        growth = max(growth, meter.gradients(2 * few) - meter.gradients(few))
    at_high = round(max(growth, 0) * 2)
    trained, frozen, state, other = meter.held
    measured = Memory(2 * few, trained, frozen, trained, state, at_high, other, high)
    return measured.at(rows)
