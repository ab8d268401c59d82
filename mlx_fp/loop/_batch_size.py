"""Search the largest batch with which a run stays below a limit of memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Unpack

from ..core._bytes import as_bytes, bytes_text, device_bytes
from ..core._options import check_options, count
from ._memory import metered, predicted
from ._options import Options, documented
from ._plan import checked_options
from ._trainer_record import Trainer, checked_trainer

__all__ = ["fit_batch_size"]

_TRIES = 8
"""The maximum number of measured batch sizes after the prediction."""

_NEAR = 0.97
"""The part of the limit above which a measured peak ends the search."""


@documented
def fit_batch_size(
    batch: object, *, limit: int | str | None = None, most: int = 65_536, **options: Unpack[Options]
) -> Callable[[Trainer], int]:
    """Search the largest number of rows in a batch with which the peak of a run stays within a limit.

    The search begins at the prediction of `memory`, and each answer is checked with real steps: the peak of the result
    has been measured. A step above the limit may happen in the search.

    Args:
        batch: A batch or data, as for `memory`. Its rows are repeated for larger batches.
        limit: Bytes of the process, as an int or a text such as `"8 GB"`. None: the memory of the device.
        most: The largest number of rows that is tried.

    Returns:
        A function from a trainer to the number of rows.

    Raises:
        TypeError: For an unknown option or a value of a wrong type, with candidates.
        ValueError: For a value out of range, and where one row needs more than the limit.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn, trainer
    >>> target = trainer(nn.linear(64, 8), lambda model, x: model(x).mean())
    >>> fit_batch_size(mx.ones((8, 64)), most=32)(target)
    32
    """
    checked_options(options)
    check_options("fit_batch_size", {"most": most}, {"most": count(1)})
    allowed = None if limit is None else as_bytes(limit, "limit of fit_batch_size")

    def search(target: Trainer) -> int:
        most_bytes = device_bytes() if allowed is None else allowed
        with metered(checked_trainer(target, "fit_batch_size"), batch, options) as (rows, planned, meter):
            needed = predicted(rows, planned, meter)
            per_row = max(needed.activations / needed.rows, 1.0)
            return largest(meter.step, most_bytes, most, (needed.rows, needed.peak), per_row)

    return search


def largest(peak_of: Callable[[int], int], limit: int, most: int, near: tuple[int, int], per_row: float) -> int:
    """Return the largest number of rows that was measured to have a peak of at most `limit`.

    Args:
        peak_of: Measures the peak of a number of rows.
        limit: The bytes that are allowed.
        most: The largest number of rows that is tried.
        near: A number of rows with its peak, from which the search extrapolates.
        per_row: The bytes of a row.

    Raises:
        ValueError: One row needs more than the limit.

    >>> largest(lambda rows: 100 + 9 * rows, 1000, 512, (8, 150), 5.0)
    100
    """
    fits, above, peaks = 0, most + 1, dict([near])
    for tried in itertools.count():
        if fits + 1 >= above or (fits and (tried >= _TRIES or peaks[fits] >= _NEAR * limit)):
            break
        if above in peaks and above != near[0]:
            per_row = (peaks[above] - near[1]) / (above - near[0])
        guess = near[0] + int((limit - near[1]) / max(per_row, 1.0))
        if tried % 2 and above in peaks:  # the peak may be a curve
            guess = (fits + above) // 2
        guess = min(max(guess, fits + 1), above - 1)
        peaks[guess] = peak_of(guess)
        if peaks[guess] <= limit:
            if guess > near[0] and peaks[guess] > near[1]:
                per_row = (peaks[guess] - near[1]) / (guess - near[0])
            fits, near = guess, (guess, peaks[guess])
        else:
            above = guess
    if not fits:
        raise ValueError(
            f"one row needs {bytes_text(peaks[1])}, and the limit is {bytes_text(limit)}: nn.remat needs less memory "
            "for activations, and fp.memory lists the rest"
        )
    return fits
