"""Shuffle the indices of an epoch, or the rows in a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ._call_text import call_text
from ._cursor import EpochRead, non_negative_int
from ._dataset import Operation
from ._random import check_seed, epoch_generator, permutation
from ._types import Item
from ._view import gather

__all__ = ["shuffle"]

_END = object()
"""Returned by `next` after the last row."""


def shuffle(*, seed: int, window: int | None = None) -> Operation:
    """Shuffle items; the order is a pure function of `(seed, epoch)`, the same on every machine.

    Without `window`, the operation shuffles the indices of the whole epoch. It must then come before the first row
    operation, and the source cannot be a stream. After `batch`, it shuffles whole batches.

    Args:
        seed: Integer from 0 to 2**32 - 1.
        window: Number of rows in a shuffle buffer. With a buffer, rows of any source can be shuffled: each output row
            is drawn at random from the buffer. None, the default, shuffles indices.

    Raises:
        ValueError: `seed` or `window` is invalid. Or the pipe has no indices, and `window` is not given; this error
            is raised when the pipe is built.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> shuffled = pipe(data.source(range(5)), data.shuffle(seed=7))
    >>> list(shuffled), list(shuffled.open(data.Cursor(epoch=1)))
    ([1, 0, 4, 3, 2], [1, 3, 4, 2, 0])
    >>> list(pipe(data.stream(lambda: "abcdef"), data.shuffle(seed=7, window=3)))
    ['a', 'd', 'e', 'c', 'f', 'b']
    """
    seed = check_seed(seed, "shuffle")
    if window is not None:
        buffer_size = non_negative_int(window, "the window of shuffle", minimum=1)
        return Operation(
            call_text("shuffle", seed=seed, window=buffer_size),
            lambda rows, epoch_read: _shuffle_buffer(rows, buffer_size, seed, epoch_read),
            size=lambda size: size,
            calls=False,
            varies=True,
        )
    return Operation(
        call_text("shuffle", seed=seed),
        on_order=lambda order, epoch_read: gather(order, permutation(seed, epoch_read.epoch, len(order))),
        size=lambda size: size,
        needs=": shuffle before it, or rows with shuffle(seed=…, window=…)",
        varies=True,
    )


def _shuffle_buffer(rows: Iterator[Item], size: int, seed: int, epoch_read: EpochRead) -> Iterator[Item]:
    """Yield rows from a buffer of `size` rows, drawn at random; the next row takes the place of the drawn one."""
    draw = epoch_generator(seed, epoch_read.epoch).random
    buffer = list(islice(rows, size))
    while buffer:
        position = int(draw() * len(buffer))
        yield buffer[position]
        row = next(rows, _END)
        buffer[position] = buffer[-1] if row is _END else row  # at the end, the last row of the buffer moves here
        if row is _END:
            buffer.pop()
